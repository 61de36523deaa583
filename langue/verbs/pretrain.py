"""What arrives: an objective, text or a corpus, and settings. What leaves: a run directory with a
language model.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from langue.runs.arguments import PRETRAIN
from langue.runs.corpora import Pretraining
from langue.runs.execute import Run, execute
from langue.train.parallel import processes


@processes()
def pretrain(
    objective: str | None = None,
    *,
    data: Any = None,
    out: str | Path,
    model: str | Path | None = None,
    tokenizer: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    recipe: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    keep_checkpoints: bool = False,
    show: Callable[[Pretraining], None] | None = None,
    **settings: Any,
) -> Run:
    """Train a language model on text and judge it on text held out.

    objective: causal (the default), masked or denoise. data: a corpus folder (`langue data
    tokenize`), or text: files, folders, Hub names, each `NAME@WEIGHT` where they are mixed. model:
    train this one further; else a new one is made as `model.preset`, `model.size` and the axes of
    `model.*` say. tokenizer: a folder; else the model's, else one is trained on the data as
    `tokenizer.*` says. recipe, keep_checkpoints, settings: as in `finetune`. Raises LangueError for
    what the user can mend.
    """
    given = {
        "objective": objective,
        "data": data,
        "model": model,
        "tokenizer": tokenizer,
        "columns": columns,
    }
    return execute(
        PRETRAIN,
        given,
        settings,
        out=out,
        recipe=recipe,
        force=force,
        resume=resume,
        show=show,
        keep_checkpoints=keep_checkpoints,
    )
