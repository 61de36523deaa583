"""Files of predictions: takes rows and their predictions, part by part; writes them in the format
of the file's name. A command that was stopped can be resumed with its predictions so far.

Until the end, rows are appended to a hidden file next to the output, `.NAME.partial`: a line that
identifies model, data and options, then one line of JSON per row. At the end it is converted to the
output and removed.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from langue.errors import Interrupted, RunError, SettingsError
from langue.files import atomic_file, disk_errors
from langue.text.read.parse import is_missing, replace_lone_surrogates

PREDICTION = "prediction"
AT_ONCE = 4096  # rows written to a Parquet file at a time
DELIMITERS = {".csv": ",", ".tsv": "\t"}
# formats that are not text
NOT_WRITTEN = (".xlsx", ".xls", ".arrow", ".feather", ".orc", ".zip", ".gz", ".xz", ".zst")
Line = Mapping[str, Any]


def check_format(out: str | Path) -> None:
    """Raise SettingsError if the name has the suffix of a format that is not supported."""
    if Path(out).suffix.lower() in NOT_WRITTEN:
        raise SettingsError(
            f"--out {out}: {Path(out).suffix} is not written",
            do="name it .jsonl, .csv, .tsv or .parquet",
        )


def line_of(row: Mapping[str, Any], prediction: Any) -> str:
    """Return a row and its prediction as JSON; null for an empty text."""
    written = {name: _sound(value) for name, value in row.items()}
    return json.dumps({**written, PREDICTION: prediction}, ensure_ascii=False, default=str)


def _sound(value: Any) -> Any:
    if isinstance(value, str):
        return replace_lone_surrogates(value)
    return None if isinstance(value, float) and is_missing(value) else value


class Predictions:
    """Predictions in the course of being written to `out`."""

    def __init__(self, out: str | Path, of: Mapping[str, Any]) -> None:
        """of: identifies model, data and options; must be the same on resume."""
        self.out = Path(out)
        self.of = dict(of)
        self.partial = self.out.with_name(f".{self.out.name}.partial")
        self.done = 0  # number of rows

    @contextmanager
    def open(self, resume: bool | None = None, force: bool = True) -> Iterator["Predictions"]:
        """Add rows inside; at the end the output exists.

        resume: whether to continue after a stopped command; None: the command cannot be resumed,
        and leaves nothing behind. Raises RunError if there are earlier predictions and neither
        resume nor force is set; Interrupted on Ctrl-C.
        """
        self._check(resume, force)
        size = self._look(bool(resume))
        with (
            disk_errors(self.partial),
            self.partial.open("r+" if size else "w", encoding="utf-8") as handle,
        ):
            handle.seek(size)
            handle.truncate()
            if not size:
                handle.write(json.dumps(self.of) + "\n")
            self._handle: TextIO = handle
            try:
                yield self
            except BaseException as error:
                if resume is None or not self.done:
                    self.partial.unlink()
                elif isinstance(error, KeyboardInterrupt):
                    raise self._interrupted() from None
                raise
        self._write_out()

    def _check(self, resume: bool | None, force: bool) -> None:
        is_there = self.partial.is_file()
        if resume and not is_there:
            raise RunError(
                "there are no predictions of a stopped command to go on with",
                where=str(self.out),
                do="leave out --resume",
            )
        if is_there and not resume and not force:
            raise RunError(
                f"a stopped command has left predictions in {self.partial}",
                where=str(self.out),
                do="go on with --resume, or begin anew with --force",
            )

    def _interrupted(self) -> Interrupted:
        return Interrupted(
            f"stopped; the predictions of {self.done:,} of {self.of['rows']:,} rows are kept",
            where=str(self.out),
            do="the same command with --resume goes on",
        )

    def _look(self, resume: bool) -> int:
        """Return the size in bytes of the complete lines to continue after, and count them."""
        if not resume:
            return 0
        with self.partial.open("rb") as handle:
            first = handle.readline()
            if not first.endswith(b"\n") or json.loads(first) != self.of:
                raise RunError(
                    "the predictions that are there are of another model, other data or options",
                    where=str(self.partial),
                    do="repeat the first command, or begin anew with --force",
                )
            size = handle.tell()
            for line in handle:
                if line.endswith(b"\n"):
                    size = size + len(line)
                    self.done += 1
        return size

    def kept(self, begin: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the rows in the partial file, from this one on."""
        with self.partial.open(encoding="utf-8") as handle:
            for line in islice(handle, 1 + begin, 1 + self.done):
                yield json.loads(line)

    def add(self, lines: Sequence[str]) -> None:
        """Append lines, in the order of the rows, and flush them to disk."""
        self._handle.writelines(f"{line}\n" for line in lines)
        self._handle.flush()
        self.done += len(lines)

    def _write_out(self) -> None:
        suffix = self.out.suffix.lower()
        with atomic_file(self.out) as temporary:
            if suffix == ".parquet":
                _write_parquet(temporary, self.kept)
            elif suffix in DELIMITERS:
                _write_separated(temporary, self.kept, DELIMITERS[suffix])
            else:
                with self.partial.open("rb") as handle, temporary.open("wb") as target:
                    target.writelines(islice(handle, 1, None))
        self.partial.unlink()


def flat(line: Line) -> dict[str, Any]:
    """Return the row of a table: the named parts of a prediction in columns of their own, such as
    `predicted_label`; lists as JSON.
    """
    cells = {name: value for name, value in line.items() if name != PREDICTION}
    prediction = line[PREDICTION]
    if isinstance(prediction, Mapping):
        cells |= {f"predicted_{name}": value for name, value in prediction.items()}
    elif prediction is not None:
        cells[PREDICTION] = prediction
    return {
        name: json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
        for name, value in cells.items()
    }


def _write_separated(path: Path, lines: Callable[[], Iterable[Line]], delimiter: str) -> None:
    columns: dict[str, None] = {}
    for line in lines():
        columns |= dict.fromkeys(flat(line))
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(columns) or [PREDICTION], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(flat(line) for line in lines())


def _write_parquet(path: Path, lines: Callable[[], Iterable[Line]]) -> None:
    """Write in parts; a column that is empty in one part and numeric in another is numeric."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schemas = [pa.Table.from_pylist(part).schema for part in _parts(lines())]
    schema = pa.unify_schemas(schemas, promote_options="permissive")
    with pq.ParquetWriter(path, schema) as writer:
        for part in _parts(lines()):
            writer.write_table(pa.Table.from_pylist(part, schema=schema))


def _parts(lines: Iterable[Line]) -> Iterator[list[dict[str, Any]]]:
    source = iter(lines)
    while part := [dict(line) for line in islice(source, AT_ONCE)]:
        yield part


def as_frame(data: Any, rows: Sequence[Mapping[str, Any]], predictions: Sequence[Any]) -> Any:
    """Return predictions in the type of the data: a pandas frame with its index, a polars frame or
    an Arrow table; otherwise a list.

    rows: further columns of each prediction.
    """
    library = type(data).__module__.partition(".")[0]
    if library not in ("pandas", "polars", "pyarrow") or not hasattr(data, "__arrow_c_stream__"):
        return list(predictions)
    shown = []
    for row, prediction in zip(rows, predictions, strict=True):
        cells = prediction if isinstance(prediction, Mapping) else {PREDICTION: prediction}
        cells = {"label": None} if prediction is None else cells
        shown.append({**row, **cells})
    if library == "pandas":
        import pandas as pd

        return pd.DataFrame(shown, index=data.index)
    import pyarrow as pa

    table = pa.Table.from_pylist(shown)
    if library == "pyarrow":
        return table
    import polars as pl

    return pl.from_arrow(table)
