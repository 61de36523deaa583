"""What arrives: a language model, prompts and choices. What leaves: the choices, the likeliest
first.
"""

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
    """The choices of each prompt as `Model.rank` gives them.

    prompts, or data: a file with a column `prompt`, and one of lists, `choices`, where `choices`
    are not given for all. out: write there each row with its answer, one JSON object a line, and
    return an empty list.
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
