"""Show what a training run would use, before training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langue.runs.arguments import FINETUNE, resolve_call
from langue.runs.prepare import Finetuning
from langue.settings.recipe import read_recipe


def preview(
    task: str | None = None,
    *,
    model: str | Path | None = None,
    data: Any = None,
    columns: Mapping[str, str] | None = None,
    recipe: str | Path | None = None,
    **settings: Any,
) -> Finetuning:
    """Prepare what `finetune` would train on, without training; `.facts` contains the figures.

    The arguments are those of `finetune`.
    """
    layer = read_recipe(Path(recipe)) if recipe else {}
    given = {"task": task, "model": model, "data": data, "columns": columns}
    words = {key.replace("__", "."): value for key, value in settings.items()}
    call = resolve_call(FINETUNE, layer, given, words)
    Finetuning.check(call)
    return Finetuning.make(call)
