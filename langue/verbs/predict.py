"""Predict with a run, from texts or a file of them, in order."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.errors import SettingsError
from langue.files import refuse_existing
from langue.progress import say
from langue.runs.model import Model, Top, load
from langue.runs.predict_lines import predict_lines
from langue.runs.predict_table import (
    check_unchanged,
    fingerprint,
    kept_columns,
    predict_chunks,
    read_table,
    warn_of_empty,
    written_row,
)
from langue.runs.predictions import PREDICTION, Predictions, as_frame, check_format, line_of
from langue.runtime import computing
from langue.settings.recipe import display_name
from langue.verbs.prompted_rows import check_one_given

STANDARD_INPUT = "-"


def predict(
    run: str | Path,
    *,
    texts: Sequence[str] | None = None,
    data: Any = None,
    out: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    keep: str | Sequence[str] | None = None,
    top: Top = "auto",
    batch_tokens: int | None = None,
    device: str | None = None,
    resume: bool = False,
    force: bool = False,
) -> Any:
    """Return the predictions of `Model.predict`, one for each text, in order.

    run: a trained run.
    texts: list of texts.
    data: instead, a file, folder, Hub name, data frame or records with a `text` column; "-":
        standard input.
    out: a file for the predictions with their texts or token ids, as JSON lines, CSV, TSV or
        Parquet, by the suffix of its name. The result is then an empty list, so that memory does
        not grow with the data.
    columns: our names -> names in the data.
    keep: other columns to write too, or "all".
    top: as in `Model.predict`.
    batch_tokens: tokens of a batch; None: suitable for the device.
    device: cpu, cuda or mps; None: LANGUE_DEVICE, or a GPU if there is one.
    resume: continue after what a stopped command wrote to `out`. force: replace it.

    An empty text has the prediction None; how many there are is reported on stderr. Predictions for
    a data frame or an Arrow table are returned in the same type, with its index. Raises LangueError
    for arguments that contradict each other.
    """
    _check(texts, data, out, keep, resume, force)
    with computing(device, batch_tokens):
        if _is_standard_input(data):
            return _of_lines(predict_lines(run, columns, top), run, out)
        model = load(run, dtype="auto")
        if texts is not None:
            return _of_texts(model, list(texts), out, top)
        table = read_table(model, data, columns, _names(keep))
        if out is None:
            chunks = predict_chunks(model, table, top)
            found = [pair for chunk in chunks for pair in chunk]
            kept = [kept_columns(row) for row, _ in found]
            return as_frame(data, kept, [prediction for _, prediction in found])
        source = {
            "run": str(run),
            "model": fingerprint(model.checkpoint.folder),
            "data": display_name(data),
            "rows": len(table),
            "columns": table.rows.column_names,
            "top": top,
        }
        with Predictions(out, source).open(resume, force) as written:
            check_unchanged(table, written)
            if written.done:
                say(f"going on after {written.done:,} of {len(table):,} rows")
            for chunk in predict_chunks(model, table, top, written.done):
                written.add([line_of(written_row(row), prediction) for row, prediction in chunk])
        return []


def predict_stream(
    run: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    keep: str | Sequence[str] | None = None,
    top: Top = "auto",
    batch_tokens: int | None = None,
    device: str | None = None,
    resume: bool = False,
) -> Iterator[str]:
    """Yield each line of standard input as a JSON object with its prediction, as soon as it is
    known.

    The arguments are those of `predict`.
    """
    _check(None, STANDARD_INPUT, None, keep, resume, force=False)
    with computing(device, batch_tokens):
        yield from predict_lines(run, columns, top)


def _is_standard_input(data: Any) -> bool:
    return isinstance(data, str) and data == STANDARD_INPUT


def _check(
    texts: Any, data: Any, out: str | Path | None, keep: Any, resume: bool, force: bool
) -> None:
    """Raise LangueError for arguments that contradict each other, before anything is loaded."""
    check_one_given(texts, data, "text")
    if isinstance(texts, str):
        raise SettingsError("texts is one string", do="give a list: [text]")
    is_file = texts is None and not _is_standard_input(data)
    if keep and not is_file:
        raise SettingsError(
            "--keep names columns of --data FILE",
            do="leave it out: JSON lines of standard input keep all that they hold",
        )
    if resume and (out is None or not is_file):
        raise SettingsError("--resume goes on with the --out of --data FILE", do="leave it out")
    refuse_existing(out, force)
    if out is None:
        return
    check_format(out)
    if isinstance(data, (str, Path)) and Path(out).exists() and _is_within(Path(out), Path(data)):
        raise SettingsError(
            f"{out} is read, and --force would replace it", do="choose another --out"
        )


def _is_within(file: Path, data: Path) -> bool:
    """Return whether a file is the data, or lies in the folder with the data."""
    return Path(os.path.realpath(file)).is_relative_to(os.path.realpath(data))


def _names(keep: str | Sequence[str] | None) -> list[str]:
    """Return column names from `id,date` or from a list."""
    if keep is None:
        return []
    return [part.strip() for part in keep.split(",")] if isinstance(keep, str) else list(keep)


def _of_lines(lines: Iterator[str], run: str | Path, out: str | Path | None) -> list[Any]:
    if out is None:
        return [json.loads(line)[PREDICTION] for line in lines]
    with Predictions(out, {"run": str(run), "rows": None}).open() as written:
        for line in lines:
            written.add([line])
    return []


def _of_texts(model: Model, texts: list[Any], out: str | Path | None, top: Top) -> list[Any]:
    results = model.predict(texts, top=top)
    empty = [row for row, result in enumerate(results) if result is None]
    first_empty = f"text {empty[0] + 1}" if empty else ""
    warn_of_empty(len(empty), len(texts), first_empty)
    if out is None:
        return results
    pairs = zip(texts, results, strict=True)
    lines = [line_of(_as_row(text, model.reads_words), result) for text, result in pairs]
    with Predictions(out, {"rows": len(texts)}).open() as written:
        written.add(lines)
    return []


def _as_row(item: Any, is_words: bool) -> dict[str, Any]:
    """Return an input as a dict by column. is_words: a list contains words; otherwise a pair of
    texts, or token ids.
    """
    if isinstance(item, Mapping):
        return dict(item)
    if item is None or isinstance(item, (str, float)):
        return {"text": item}
    if is_words:
        return {"tokens": list(item)}
    if len(item) == 2 and any(each is None or isinstance(each, (str, float)) for each in item):
        return {"text": item[0], "pair": item[1]}
    return {"tokens": [int(each) for each in item]}
