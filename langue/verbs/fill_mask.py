"""Predict the masked tokens of texts with a masked language model."""

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
    """Return the most probable tokens for the masks of each text, as `Model.fill_mask` does.

    model: a masked language model: a Hub name, folder or run.
    texts, or data: the texts, or a file with a column `text`.
    out: a file for the rows with their predictions, one JSON object per line; the result is then an
        empty list. force: replace it if it exists.
    columns: our names -> names in the data.
    top: number of tokens for each mask.
    targets: restrict the candidates to these tokens.
    """
    ready = load(model)

    def work(rows: Rows) -> list[Any]:
        return ready.fill_mask([row["text"] for row in rows], top, targets)

    return each_row(work, texts, data, out, column="text", columns=columns, force=force)
