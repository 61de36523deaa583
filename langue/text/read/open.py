"""Opens the data that the user named, as one table per split with the columns found and renamed.

Files are recognised by their names: the suffix determines the format, the name (train,
dev/validation/valid/val, test) the split.
"""

import bisect
import contextlib
import difflib
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from langue.errors import DataError
from langue.files import unreadable
from langue.text.read.arrow import as_arrow, convert, from_arrow, from_records
from langue.text.read.columns import Columns as Columns
from langue.text.read.columns import NoTarget, listed
from langue.text.read.lines import blocks, encoding_note
from langue.text.read.parallel import columns_of, listed_files, named_parts, together
from langue.text.read.parallel import records as records_of_columns
from langue.text.read.parse import (
    KINDS,
    OF_ONE_HEADER,
    OF_ROWS,
    UNCODED,
    Heard,
    Record,
    as_record,
    batches,
    kind,
    parquet,
    records,
)
from langue.text.read.table import ALIASES as ALIASES
from langue.text.read.table import SPLITS, Table, as_dataset

SPLIT_NAME = re.compile(r"(?:^|[-_.])(train|training|dev|validation|valid|val|test)(?=$|[-_.])")


def tables(data: Any, columns: Columns, notes: list[str]) -> tuple[dict[str, Table], bool]:
    """Return ({split: table}, whether the data is divided into splits); a single table is called
    train.
    """
    import datasets

    if isinstance(data, datasets.Dataset):
        return {"train": _from_dataset(data, "the data set", columns)}, False
    if isinstance(data, Mapping):
        return _from_mapping(data, "the data set", columns, notes), True
    if isinstance(data, (list, tuple)):
        return {"train": _from_list(data, "the list", columns, notes)}, False
    if not isinstance(data, (str, Path)):
        return {"train": _from_frame(data, "the table", columns, notes)}, False
    path = expanded(data)
    if exists(path):
        if path.is_dir():
            return _from_folder(path, columns, notes)
        return {"train": _from_file(path, columns, notes)}, False
    return _from_hub(str(data), columns, notes)


def expanded(name: str | Path) -> Path:
    """Return the path of this name, with `~` expanded."""
    if not str(name).strip():  # would be the current folder, but is more likely an unset variable
        raise DataError(
            "the data has an empty name", do="name a file, a folder or a data set of the Hub"
        )
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise DataError(
            "whose home ~ is, is not known", where=str(name), do="write the path out"
        ) from None


def exists(path: Path) -> bool:
    """Return whether a file or folder exists; raise DataError if permissions do not allow to know
    it.
    """
    try:
        return path.exists()
    except PermissionError as error:
        raise unreadable(error, path, DataError) from None
    except OSError:  # e.g. a name too long for the file system
        return False


def split_of(file: Path) -> str | None:
    """Return the split that the name of a file says; None if it says none."""
    found = SPLIT_NAME.search(file.name.lower().removesuffix(kind(file)))
    return ALIASES.get(found[1], found[1]) if found else None


def check_kind(path: Path, kinds: Sequence[str] = KINDS) -> None:
    """Raise DataError, which lists `kinds`, if the suffix of a file is not that of a supported
    format.
    """
    if kind(path) not in KINDS:
        raise DataError(
            f"{kind(path) or 'a name without suffix'} is not a format that is read",
            where=str(path),
            do=f"it must end in {' '.join(kinds)}, perhaps with .gz .xz .zst behind",
        )


def _from_file(path: Path, columns: Columns, notes: list[str]) -> Table:
    """Return the table of a file, or of it and the files aligned with it line by line."""
    if kind(path) not in KINDS and path.is_file():
        beside = together(path.parent.iterdir()).get(named_parts(path)[0], [])
        if path in beside:
            return _from_parallel(beside, columns, notes)
    return _from_files([path], columns, notes)


def _from_parallel(paths: Sequence[Path], columns: Columns, notes: list[str]) -> Table:
    """Return one table of files that contain one column each; files that are not needed are not
    read.
    """
    origin = listed_files(paths)
    by_column = columns_of(paths)
    asked = columns.find(list(by_column), origin)
    read = [by_column[theirs] for theirs in asked.values()]
    place = listed_files(read)
    if columns.encoding is not None:
        for path in read:
            notes.extend(encoding_note(path, str(path), columns.encoding))
    table, numbers = from_records(
        partial(records_of_columns, read, columns.form),
        partial(columns.find, where=origin),
        lambda number: f"{place}, line {number}",
        notes.append,
    )
    if table is None or not len(table):
        raise DataError("there are no rows in them", where=place, do="fill them")
    said = ", ".join(f"{by_column[theirs].name} is the {ours}" for ours, theirs in asked.items())
    others = [path.name for path in paths if path not in read]
    left = f"; {listed(others)} not used" if others else ""
    notes.append(f"{place} are read line by line: {said}{left}")
    return Table(as_dataset(table), place, lambda row: f"{place}, line {numbers[row]}")


def _from_files(paths: list[Path], columns: Columns, notes: list[str]) -> Table:
    """Return one table of a file, or of the shards of one."""
    import pyarrow as pa

    parts = []
    starts = [0]
    places = []
    decimal_comma = False
    for path in paths:
        table, lines, heard = _read_file(path, columns, notes)
        decimal_comma = decimal_comma or heard.decimal_comma
        parts.append(table)
        starts.append(starts[-1] + len(table))
        places.append((str(path), "row" if kind(path) in OF_ROWS else "line", lines))

    def locate(row: int) -> str:
        shard = bisect.bisect_right(starts, row) - 1
        name, unit, lines = places[shard]
        local = row - starts[shard]
        return f"{name}, {unit} {lines[local] if lines is not None else local + 1}"

    origin = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    try:
        whole = (
            parts[0] if len(parts) == 1 else pa.concat_tables(parts, promote_options="permissive")
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise DataError(
            "the files' columns are of different types", where=origin, do="write them alike"
        ) from None
    return Table(as_dataset(whole), origin, locate, decimal_comma)


def _read_file(
    path: Path, columns: Columns, notes: list[str]
) -> tuple[Any, "array[int] | None", Heard]:
    where = str(path)
    heard = Heard()
    check_kind(path)
    if not path.is_file():
        raise DataError("is not a file", where=where, do="name a file, or a folder of files")
    lines: array[int] | None = None
    if kind(path) == ".parquet":
        file = parquet(path, where)
        theirs_by_ours = columns.find(file.schema_arrow.names, where)
        parts = batches(file, list(theirs_by_ours.values()), where)
        schema = file.schema_arrow
        table = from_arrow(map(_as_table, parts), schema, theirs_by_ours, where)
    else:
        unit = "row" if kind(path) in OF_ROWS else "line"
        form = columns.form
        if form.encoding is not None and kind(path) not in UNCODED:
            notes.extend(encoding_note(path, where, form.encoding))
        table, lines = from_records(
            lambda: records(path, where, heard, form),
            partial(columns.find, where=where, of_line=kind(path) in OF_ONE_HEADER),
            lambda number: f"{where}, {unit} {number}",
            lambda text: notes.append(f"{where}: {text}"),
        )
        notes.extend(heard.notes)
    if table is None or not len(table):
        raise DataError("there are no rows in it", where=where, do="fill it, or leave it out")
    return table, lines, heard


def _as_table(batch: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_batches([batch])


def _from_folder(folder: Path, columns: Columns, notes: list[str]) -> tuple[dict[str, Table], bool]:
    from langue.text.read.folders import divided

    parts = divided(folder, split_of, columns.may_be, notes)
    if "all" in parts:
        return {"train": _from_texts(parts["all"].texts, folder, columns, notes)}, False

    def read(split: str) -> Table:
        part = parts[split]
        if part.texts:
            return _from_texts(part.texts, folder, columns, notes)
        if part.parallel:
            return _from_parallel(part.parallel, columns, notes)
        return _from_files(part.files, columns, notes)

    return _each_split(parts, read, notes), True


def _each_split(
    named: Iterable[str], read: Callable[[str], Table], notes: list[str]
) -> dict[str, Table]:
    """Return the table of each split.

    A test split without targets, as published for competitions, is left out with a note.
    """
    found: dict[str, Table] = {}
    for split in (each for each in SPLITS if each in named):
        try:
            found[split] = read(split)
        except NoTarget as error:
            if split != "test" or not found:
                raise
            notes.append(f"{error.where}: {error.what}: nothing to judge by, so it is left out")
    return found


def _from_texts(
    texts: Sequence[tuple[Path, str]], folder: Path, columns: Columns, notes: list[str]
) -> Table:
    """Return a table with one text per file, labelled by its folder."""

    def where(number: int) -> str:
        return str(texts[number][0])

    def read() -> Iterator[Record]:
        for number, (path, label) in enumerate(texts):
            parts = blocks(path, str(path), encoding=columns.encoding)
            yield number, {"text": "".join(part for _, part in parts), "label": label}

    find: Callable[[list[str]], dict[str, str]] = partial(columns.find, where=str(folder))
    table, _ = from_records(read, find, where, notes.append)
    return Table(as_dataset(table), str(folder), where)


def _from_mapping(
    data: Mapping[Any, Any], name: str, columns: Columns, notes: list[str], join: str = ", "
) -> dict[str, Table]:
    """Return the splits of a DatasetDict, or of a plain dictionary of lists or data sets."""
    import datasets

    splits: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for theirs, rows in data.items():
        ours = ALIASES.get(str(theirs), str(theirs))
        if ours not in SPLITS or ours in splits:
            notes.append(f"{name}{join}{theirs} is not used")
            continue
        splits[ours] = rows
        origins[ours] = f"{name}{join}{theirs}"

    def read(split: str) -> Table:
        rows = splits[split]
        if isinstance(rows, datasets.Dataset):
            return _from_dataset(rows, origins[split], columns)
        if isinstance(rows, (list, tuple)):
            return _from_list(rows, origins[split], columns, notes)
        if isinstance(rows, (str, Path)):
            return _of_one_split(rows, columns, notes)
        return _from_frame(rows, origins[split], columns, notes)

    found = _each_split(splits, read, notes)
    if not found:
        raise DataError(
            f"no train, dev or test split; it has {listed([str(each) for each in data])}",
            where=name,
            do='give {"train": ..., "test": ...}',
        )
    return found


def _of_one_split(name: str | Path, columns: Columns, notes: list[str]) -> Table:
    """Return the table of a file, or of a folder that is not divided into splits."""
    found, is_divided = tables(name, columns, notes)
    if is_divided:
        raise DataError(
            f"it is divided into {', '.join(found)}, and one split is asked for",
            where=str(name),
            do="name it with --data, or one of its files here",
        )
    return found["train"]


def _from_frame(data: Any, origin: str, columns: Columns, notes: list[str]) -> Table:
    """Return a table of pandas, polars, Arrow or another library that supports the Arrow C stream
    interface.
    """
    if hasattr(data, "collect"):  # a lazy query of polars
        raise DataError("it is a query, and no table yet", where=origin, do="give data.collect()")
    table = as_arrow(data)
    if table is None:
        raise DataError(
            f"data of type {type(data).__name__} cannot be read",
            do=(
                "give a file, a folder, a Hub name, a list of records, a data frame, an Arrow table"
                " or a datasets.Dataset"
            ),
        )
    if isinstance(table, list):
        return _from_list(table, origin, columns, notes)
    theirs_by_ours = columns.find(table.column_names, origin)
    if not len(table):
        raise DataError("there are no rows in it", where=origin, do="give at least one row")
    return Table(as_dataset(from_arrow([table], table.schema, theirs_by_ours, origin)), origin)


def _from_dataset(data: Any, origin: str, columns: Columns) -> Table:
    theirs_by_ours = columns.find(data.column_names, origin)
    if not len(data):
        raise DataError("there are no rows in it", where=origin, do="leave the split out")
    flat = data.flatten_indices() if data._indices is not None else data
    return Table(
        as_dataset(convert(flat.data.table, flat.features, theirs_by_ours, origin)), origin
    )


def _from_list(data: Sequence[Any], origin: str, columns: Columns, notes: list[str]) -> Table:
    def where(number: int) -> str:
        return f"{origin}, row {number}"

    def numbered() -> Iterator[Record]:
        return (
            (number, as_record(value, where(number), columns.form))
            for number, value in enumerate(data, start=1)
        )

    find: Callable[[list[str]], dict[str, str]] = partial(columns.find, where=origin)
    table, _ = from_records(numbered, find, where, notes.append)
    if table is None:
        raise DataError("there are no rows in it", where=origin, do="give at least one record")
    return Table(as_dataset(table), origin)


def _from_hub(name: str, columns: Columns, notes: list[str]) -> tuple[dict[str, Table], bool]:
    """Return the splits of a Hub data set, via the cache of the `datasets` library."""
    return _from_mapping(load_hub(name), name, columns, notes, join=":"), True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Disable the libraries' progress bars and log messages, and restore them afterwards."""
    import datasets
    from huggingface_hub.utils import logging as hub_logging

    bars = not datasets.utils.are_progress_bars_disabled()
    levels = [(each, each.get_verbosity()) for each in (datasets.utils.logging, hub_logging)]
    datasets.utils.disable_progress_bars()
    for each, _ in levels:
        each.set_verbosity(each.CRITICAL)
    try:
        yield
    finally:
        for each, level in levels:
            each.set_verbosity(level)
        if bars:
            datasets.utils.enable_progress_bars()


def refuse_missing(name: str | Path) -> None:
    """Raise DataError if there is no such file or folder, and the name cannot be that of a Hub data
    set.
    """
    if exists(expanded(name)):
        return
    path = str(name).partition(":")[0]
    if kind(Path(name)) in KINDS or not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", path):
        raise DataError(
            "there is no such file or folder", where=str(name), do=_near_files(Path(name))
        )


def load_hub(name: str, **options: Any) -> Any:
    """Return the splits of a Hub data set, `owner/name` or `owner/name:configuration`, as loaded by
    `datasets`.
    """
    import datasets

    refuse_missing(name)
    path, _, configuration = name.partition(":")
    # before version 4 of datasets: never run the code of a data set
    if hasattr(datasets.config, "HF_DATASETS_TRUST_REMOTE_CODE"):
        datasets.config.HF_DATASETS_TRUST_REMOTE_CODE = False
    try:
        with quiet():
            return datasets.load_dataset(path, configuration or None, **options)
    except datasets.exceptions.DatasetNotFoundError:
        raise DataError(
            "neither a file or folder here nor a data set on the Hub",
            where=name,
            do=_near_files(Path(name)),
        ) from None
    except Exception as error:  # any error of the network, the Hub or its data sets
        what = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "config" in what.lower():
            do = f"choose a configuration: {path}:NAME; {' '.join(str(error).split())[:300]}"
        elif isinstance(error, OSError):
            do = f"check the network; if a file or folder here is meant, {_near_files(Path(name))}"
        else:
            do = "save it as a local file and name that"
        raise DataError(
            f"the data set cannot be read from the Hub: {what}", where=name, do=do
        ) from error


def _near_files(path: Path) -> str:
    """Return the remedy for a missing file: the most similar names in its folder."""
    folder = expanded(path).parent
    if not exists(folder) or not folder.is_dir():
        return f"the folder {folder} does not exist either"
    try:
        names = [each.name for each in folder.iterdir()]
    except OSError as error:
        return f"the folder {folder} cannot be read: {error.strerror or error}"
    near = difflib.get_close_matches(path.name, names, 3, 0.6)
    return (
        f"did you mean {' or '.join(str(folder / each) for each in near)}?"
        if near
        else f"look into {folder}"
    )
