"""Checks of a command's arguments before PyTorch is imported, which takes seconds.

Whatever passes here is checked again where it is used.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langue.files import refuse_existing


def check_inputs(
    *,
    model: str | None = None,
    revision: str | None = None,
    data: str | Mapping[str, str] | None = None,
    out: str | None = None,
    force: bool = False,
) -> None:
    """LangueError where a model or data are not there, or a file to be written is."""
    from langue.hub.snapshot import refuse_missing

    refuse_existing(out, force)
    for each in data.values() if isinstance(data, Mapping) else [data]:
        if each is not None and each != "-":
            from langue.text.read.open import refuse_missing as refuse_missing_data

            refuse_missing_data(each)
    if model is not None:
        refuse_missing(model, revision)


def check_training(
    command: str,
    given: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    recipe: str | None = None,
    out: str | None = None,
    force: bool = False,
    resume: bool = False,
) -> None:
    """LangueError where a training command cannot be followed, whatever its task makes of it.

    command: FINETUNE or PRETRAIN of `langue.runs.arguments`; given: its arguments.
    """
    from langue.runs import arguments
    from langue.runs.folder import RECIPE, run_folder
    from langue.settings.recipe import ROWS, read_recipe

    layer = {} if recipe is None else read_recipe(Path(recipe))
    if out is not None:
        folder, resume = run_folder(out, force=force, resume=resume)
        layer = read_recipe(folder / RECIPE) | layer if resume else layer
    named = arguments.check_words(getattr(arguments, command), layer, given, settings)
    if resume:  # what the run has made of its data may be all that it needs
        return
    data = named["data"]
    # of text that is mixed, NAME@WEIGHT, the reader says what is not there
    is_plain = isinstance(data, Mapping) or isinstance(data, str) and "@" not in data
    is_plain = is_plain and data != ROWS
    check_inputs(model=named["model"], data=data if is_plain else None)
