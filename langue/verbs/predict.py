"""What arrives: a run and texts, or a file of them. What leaves: what the task promises of each, in order."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.errors import RunError, SettingsError
from langue.files import atomic_file
from langue.text.source import read
from langue.verbs.model import load
from langue.verbs.progress import bar

CHUNK = 4096  # texts encoded and predicted together: memory stays constant whatever the file's size


def predict(
    run: str | Path,
    *,
    texts: Sequence[str] | None = None,
    data: Any = None,
    out: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    top: int | None = 1,
    force: bool = False,
) -> list[Any]:
    """Predictions as `transformers` pipelines return them, one a text; top=None gives all labels.

    texts, or data (a file, folder or Hub name with a `text` column). out: write JSON lines there, each with the
    text and its prediction, and return nothing but an empty list: bulk work does not fill the memory.
    """
    if (texts is None) == (data is None):
        raise SettingsError("predict needs either texts or data", do='give --text "..." or --data FILE')
    if out is not None and Path(out).exists() and not force:
        raise RunError("the file exists", where=str(out), do="choose another --out, or replace it with --force")
    model = load(run, dtype="auto")
    if texts is not None:
        results = model.predict(list(texts), top=top)
        if out is not None:
            with atomic_file(Path(out)) as temporary:
                _write(temporary, [{"text": t, "prediction": r} for t, r in zip(texts, results, strict=True)])
        return [] if out is not None else results
    source = read(data, columns=columns, need=("text",), optional=("pair",), split=False)
    table = source.test or source.train or source.dev
    if table is None:
        raise RunError("there is nothing to predict", where=str(data), do="give a file with a text column")
    everything: list[Any] = []
    with bar("predicting", len(table)) as advance:
        for begin in range(0, len(table), CHUNK):
            part = table.select(range(begin, min(begin + CHUNK, len(table))))
            items: Any = part.column("text")
            if "pair" in part.rows.column_names:
                items = list(zip(items, part.column("pair"), strict=True))
            everything += zip(items, model.predict(items, top=top), strict=True)
            advance(len(part))
    if out is None:
        return [result for _, result in everything]
    with atomic_file(Path(out)) as temporary:
        _write(temporary, [{"text": text, "prediction": result} for text, result in everything])
    return []


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as handle:
        for row in rows:
            handle.write(json.dumps(row, ensure_ascii=False) + "\n")
