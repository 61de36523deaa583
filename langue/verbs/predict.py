"""What arrives: a run and texts, or a file of them. What leaves: what the task promises of each, in order."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.errors import RunError, SettingsError
from langue.files import atomic_file, refuse_existing
from langue.recipe import called
from langue.text.parse import sound
from langue.text.source import Table, read
from langue.text.table import SPLITS
from langue.verbs.model import Model, load
from langue.verbs.progress import bar, say

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
    text, or its token ids, and its prediction, and return nothing but an empty list: bulk work does not fill the
    memory.
    """
    if (texts is None) == (data is None):
        raise SettingsError("predict needs either texts or data", do='give --text "..." or --data FILE')
    if isinstance(texts, str):
        raise SettingsError("texts is one string", do="give a list: [text]")
    refuse_existing(out, force)
    if out is not None and isinstance(data, (str, Path)) and Path(out).exists() and _within(Path(out), Path(data)):
        raise SettingsError(f"{out} is read, and --force would replace it", do="choose another --out")
    model = load(run, dtype="auto")
    if texts is not None:
        texts = list(texts)
        results = model.predict(texts, top=top)
        if out is not None:
            with atomic_file(Path(out)) as temporary:
                temporary.write_text("".join(map(_line, texts, results)), "utf-8")
        return [] if out is not None else results
    need = ("text", "pair") if model.pairs else ("text",)
    optional = () if model.pairs is False else ("pair",)
    source = read(data, columns=columns, need=need, optional=optional, split=False)
    table = source.test or source.train or source.dev
    if table is None:
        raise RunError("there is nothing to predict", where=called(data), do="give a file with a text column")
    if left := [name for name in SPLITS if getattr(source, name) not in (None, table)]:
        say(f"predicting the {len(table):,} rows of {table.origin}, not those of {' and '.join(left)}")
    if out is None:
        return [result for part in _bulk(model, table, top) for _, result in part]
    with atomic_file(Path(out)) as temporary, temporary.open("w", encoding="utf-8") as handle:
        for part in _bulk(model, table, top):
            handle.writelines(_line(text, result) for text, result in part)
    return []


def _within(file: Path, data: Path) -> bool:
    """Whether it is the data, or lies in the folder that is."""
    return Path(os.path.realpath(file)).is_relative_to(os.path.realpath(data))


def _bulk(model: Model, table: Table, top: int | None) -> Iterator[list[tuple[Any, Any]]]:
    """(text, prediction) of a table's rows in order, a chunk at a time, with a progress bar."""
    with bar("predicting", len(table)) as advance, model.inputs.counting_truncation():
        for begin in range(0, len(table), CHUNK):
            part = table.select(range(begin, min(begin + CHUNK, len(table))))
            texts, pairs = part.column("text"), None
            if "pair" in part.rows.column_names:
                pairs = part.column("pair")
            items: Any = texts if pairs is None else list(zip(texts, pairs, strict=True))
            yield list(zip(items, model.predict(items, top=top), strict=True))
            advance(len(part))


def _line(text: Any, prediction: Any) -> str:
    if isinstance(text, str):
        row: dict[str, Any] = {"text": sound(text)}
    elif isinstance(text[0], str):
        row = {"text": sound(text[0]), "pair": sound(text[1])}
    else:
        row = {"tokens": [int(each) for each in text]}
    return json.dumps({**row, "prediction": prediction}, ensure_ascii=False) + "\n"
