"""What arrives: a model, texts and labels that it was not trained on. What leaves: the labels of
each text, the likeliest first.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.errors import DataError
from langue.runs.model import load
from langue.runs.prompted import TEMPLATE, Normalize
from langue.text.read.rows import read_rows
from langue.verbs.prompted_rows import Rows, each_row


def zero_shot(
    model: str | Path,
    *,
    labels: Sequence[str],
    texts: Sequence[str] | None = None,
    data: Any = None,
    out: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    template: str = TEMPLATE,
    examples: Any = None,
    multi_label: bool = False,
    normalize: Normalize = "none",
    calibrate: bool = False,
    force: bool = False,
) -> list[Any]:
    """The labels of each text as `Model.zero_shot` gives them.

    texts, or data: a file with a column `text`. examples: pairs of text and label that a language
    model is shown, or a file with these columns. out: write there each row with its answer, one
    JSON object a line, and return an empty list.
    """
    shown = _examples(examples)
    ready = load(model)

    def work(rows: Rows) -> list[Any]:
        return ready.zero_shot(
            [row["text"] for row in rows],
            labels,
            template=template,
            examples=shown,
            multi_label=multi_label,
            normalize=normalize,
            calibrate=calibrate,
        )

    return each_row(work, texts, data, out, column="text", columns=columns, force=force)


def _examples(given: Any) -> list[tuple[str, str]]:
    """Pairs of text and label."""
    if given is None:
        return []
    if not isinstance(given, str | Path):
        return [(text, label) for text, label in given]
    made = []
    for rows in read_rows(given).values():
        for row, where in zip(rows.values, rows.where, strict=True):
            if not isinstance(row.get("text"), str) or row.get("label") is None:
                raise DataError(
                    "an example has no text, or no label", where=where, do="fill both in"
                )
            made.append((row["text"], str(row["label"])))
    return made
