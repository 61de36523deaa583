"""What arrives: what training would take. What leaves: the facts to see before paying."""

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
    """What `finetune` would train on, without training: `.facts` holds the numbers. Takes
    `finetune`'s arguments.
    """
    layer = read_recipe(Path(recipe)) if recipe else {}
    given = {"task": task, "model": model, "data": data, "columns": columns}
    words = {key.replace("__", "."): value for key, value in settings.items()}
    call = resolve_call(FINETUNE, layer, given, words)
    Finetuning.check(call)
    return Finetuning.make(call)
