"""Rank the choices of each prompt by their likelihood under a language model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.errors import SettingsError
from langue.runs.model import load
from langue.runs.prompted import Normalize
from langue.verbs.prompted_rows import Rows, each_row


def rank(
    model: str | Path,
    *,
    prompts: Sequence[str] | None = None,
    choices: Sequence[str] | None = None,
    data: Any = None,
    out: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    normalize: Normalize = "none",
    neutral: Sequence[str] | None = None,
    force: bool = False,
) -> list[Any]:
    """Rank the choices of each prompt by their likelihood, as `Model.rank` does.

    model: a language model: a Hub name, folder or run.
    prompts, or data: the prompts, or a file with a column `prompt`.
    choices: for all prompts; None: from a column of lists, `choices`, in the file.
    out: a file for the rows with their answers, one JSON object per line; the result is then an
        empty list. force: replace it if it exists.
    columns: our names -> names in the data.
    normalize, neutral: as in `Model.rank`.
    """
    if choices is None and data is None:
        raise SettingsError("there are no choices", do='give --choice "..." for each')
    ready = load(model)

    def work(rows: Rows) -> list[Any]:
        own = [row["choices"] for row in rows] if choices is None else choices
        return ready.rank(
            [row["prompt"] for row in rows], own, normalize=normalize, neutral=neutral
        )

    return each_row(
        work,
        prompts,
        data,
        out,
        column="prompt",
        columns=columns,
        need_list="choices" if choices is None else None,
        force=force,
    )
