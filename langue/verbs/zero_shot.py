"""Classify texts with labels on which the model was not trained."""

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
    """Rank the labels of each text without training, as `Model.zero_shot` does.

    model: a language model or an NLI classifier: a Hub name, folder or run.
    labels: the candidate labels.
    texts, or data: the texts, or a file with a column `text`.
    out: a file for the rows with their answers, one JSON object per line; the result is then an
        empty list. force: replace it if it exists.
    columns: our names -> names in the data.
    examples: (text, label) pairs to show to a language model, or a file with these columns.
    template, multi_label, normalize, calibrate: as in `Model.zero_shot`.
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
    """Return pairs of text and label."""
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
