"""What arrives: a masked model and texts with masks. What leaves: what each mask may be, the
likeliest first.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.runs.model import load
from langue.verbs.prompted_rows import Rows, each_row


def fill_mask(
    model: str | Path,
    *,
    texts: Sequence[str] | None = None,
    data: Any = None,
    out: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    top: int = 5,
    targets: Sequence[str] | None = None,
    force: bool = False,
) -> list[Any]:
    """What the masks of each text may be, as `Model.fill_mask` gives it.

    texts, or data: a file with a column `text`. out: write there each row with its answer, one JSON
    object a line, and return an empty list.
    """
    ready = load(model)

    def work(rows: Rows) -> list[Any]:
        return ready.fill_mask([row["text"] for row in rows], top, targets)

    return each_row(work, texts, data, out, column="text", columns=columns, force=force)
