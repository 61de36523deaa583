"""Pretrain a language model on text or a corpus."""

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
    """Train a language model on text, evaluate it on held-out text, and return the run.

    objective: causal (default), masked or denoise.
    data: a corpus folder (`langue data tokenize`), or text: files, folders or Hub names, each
        `NAME@WEIGHT` to mix them.
    out: the run's folder. force: replace an existing run; resume: continue a stopped one.
    model: a model to train further; None: a new one, as specified by `model.preset`, `model.size`
        and the other `model.*` settings.
    tokenizer: a folder; None: that of the model, or a new one that is trained on the data as
        specified by `tokenizer.*`.
    columns: our names -> names in the data.
    show: called with the prepared data and model before training.
    recipe, keep_checkpoints, settings: as in `finetune`.

    Raises LangueError for every error that the user can correct.
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
