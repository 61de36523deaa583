"""What arrives: what the user named as data. What leaves: its splits as tables, columns found and
renamed.

Files are told by their names: the suffix says the format, the name (train,
dev/validation/valid/val, test) the split.
"""

import bisect
import contextlib
import difflib
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from langue.errors import DataError
from langue.files import unreadable
from langue.text.read.arrow import convert, from_arrow, from_records
from langue.text.read.parse import KINDS, Record, as_record, batches, kind, parquet, records
from langue.text.read.table import INSTEAD, PUBLISHED, SPLITS, Table, alternatives, as_dataset

ALIASES = {
    "training": "train",
    "validation": "dev",
    "valid": "dev",
    "val": "dev",
    "validation_matched": "dev",
}
SPLIT_NAME = re.compile(r"(?:^|[-_.])(train|training|dev|validation|valid|val|test)(?=$|[-_.])")
_SHARD = re.compile(r"-\d+-of-\d+")


@dataclass(frozen=True)
class Columns:
    """Which columns are read, by our names, and what theirs are called where that differs."""

    need: tuple[str, ...]
    optional: tuple[str, ...]
    renamed: dict[str, str]
    # what people call them, likeliest first: for the remedy only, never taken by itself
    synonyms: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def find(self, there: Sequence[str], where: str) -> dict[str, str]:
        """ours -> theirs of the columns among those that are there; a DataError with the
        remedy for others.
        """
        theirs_by_ours = {
            ours: self.renamed.get(ours, ours) for ours in dict.fromkeys(self.need + self.optional)
        }
        found = self._found(list(theirs_by_ours), there)
        has_others = False
        if any(ours in INSTEAD and ours not in found for ours in self.need):
            for others in alternatives(self.need):
                instead = self._found(others, there)
                has_others = len(instead) == len(others)
                if has_others:
                    found |= instead
                    break
        missing = [
            ours
            for ours in theirs_by_ours
            if ours not in found
            and (ours in self.need or ours in self.renamed)
            and not (has_others and ours in INSTEAD)
        ]
        if missing and (odd := [name for name in there if not isinstance(name, str)]):
            raise DataError(
                f"a column is called {odd[0]!r}, no string",
                where=where,
                do='write {"text": "...", ...}',
            )
        if missing:
            names = " and ".join(repr(theirs_by_ours[ours]) for ours in missing)
            free = [name for name in there if name and name not in found.values()]
            remedy = ",".join(f"{ours}={self._nearest(ours, free) or 'NAME'}" for ours in missing)
            raise DataError(
                f"there is no column {names}; its columns are {_listed(there)}",
                where=where,
                do=f"say which it is with --columns {remedy}",
            )
        twice = next((theirs for theirs in found.values() if list(there).count(theirs) > 1), None)
        if twice is not None:
            raise DataError(
                f"two columns are called {twice!r}", where=where, do="give each column its own name"
            )
        return found

    def _found(self, names: Sequence[str], there: Sequence[str]) -> dict[str, str]:
        """ours -> theirs of those that are there, by our name for them or the one that is theirs
        alone.
        """
        found = {}
        for ours in names:
            named = [self.renamed[ours]] if ours in self.renamed else [ours]
            if named == [ours] and ours not in there:
                published = [each for each in PUBLISHED.get(ours, ()) if each in there]
                named = published if len(published) == 1 else []
            if named and named[0] in there:
                found[ours] = named[0]
        return found

    def _nearest(self, ours: str, there: list[str]) -> str | None:
        lowered = {name.lower(): name for name in there}
        asked = self.renamed.get(ours, ours).lower()
        near = difflib.get_close_matches(asked, list(lowered), 1, 0.6)
        near += [name for name in self.synonyms.get(ours, ()) if name in lowered]
        return lowered[near[0]] if near else None


def _listed(names: Sequence[str]) -> str:
    shown = [name if len(name) <= 30 else name[:29] + "…" for name in map(str, names[:12])]
    return ", ".join(shown) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "none"


def tables(data: Any, columns: Columns, notes: list[str]) -> tuple[dict[str, Table], bool]:
    """({split: table}, whether the data came divided into splits; if not, the one table is called
    train).
    """
    import datasets

    if isinstance(data, datasets.Dataset):
        return {"train": _from_dataset(data, "the data set", columns)}, False
    if isinstance(data, Mapping):
        return _from_mapping(data, "the data set", columns, notes), True
    if isinstance(data, (list, tuple)):
        return {"train": _from_list(data, "the list", columns, notes)}, False
    if not isinstance(data, (str, Path)):
        raise DataError(
            f"data of type {type(data).__name__} cannot be read",
            do="give a file, a folder, a Hub name, a list of records or a datasets.Dataset",
        )
    path = expanded(data)
    if exists(path):
        if path.is_dir():
            return _from_folder(path, columns, notes), True
        return {"train": _from_files([path], columns, notes)}, False
    return _from_hub(str(data), columns, notes)


def expanded(name: str | Path) -> Path:
    """The path of this name, `~` written out."""
    if not str(name).strip():  # not this folder: a variable that is not set, rather
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
    """Whether there is such a file or folder; a DataError where that may not be known."""
    try:
        return path.exists()
    except PermissionError as error:
        raise unreadable(error, path, DataError) from None
    except OSError:  # a name longer than file systems take
        return False


def split_of(file: Path) -> str | None:
    """The split that a file's name says it is of; None where it says none."""
    found = SPLIT_NAME.search(file.name.lower().removesuffix(kind(file)))
    return ALIASES.get(found[1], found[1]) if found else None


def check_kind(path: Path, kinds: Sequence[str] = KINDS) -> None:
    """DataError, which names `kinds`, where a file's suffix is of no format that is read."""
    if kind(path) not in KINDS:
        raise DataError(
            f"{kind(path) or 'a name without suffix'} is not a format that is read",
            where=str(path),
            do=f"it must end in {' '.join(kinds)}, perhaps with .gz .xz .zst behind",
        )


def _from_files(paths: list[Path], columns: Columns, notes: list[str]) -> Table:
    """One table of a file, or of the shards of one."""
    import pyarrow as pa

    parts = []
    starts = [0]
    places = []
    for path in paths:
        table, lines = _read_file(path, columns, notes)
        parts.append(table)
        starts.append(starts[-1] + len(table))
        places.append((str(path), "row" if kind(path) in (".json", ".parquet") else "line", lines))

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
    return Table(as_dataset(whole), origin, locate)


def _read_file(path: Path, columns: Columns, notes: list[str]) -> tuple[Any, "array[int] | None"]:
    where = str(path)
    check_kind(path)
    if not path.is_file():
        raise DataError("is not a file", where=where, do="name a file, or a folder of files")
    lines: array[int] | None = None
    if kind(path) == ".parquet":
        import datasets
        import pyarrow as pa

        file = parquet(path, where)
        theirs_by_ours = columns.find(file.schema_arrow.names, where)
        schema = file.schema_arrow
        used = pa.schema([schema.field(name) for name in theirs_by_ours.values()], schema.metadata)
        try:
            features = datasets.Features.from_arrow_schema(used)
        except ValueError as error:  # a type that `datasets` has not
            what = str(error).rstrip(".")
            raise DataError(
                f"a column cannot be read: {what}", where=where, do="write it as strings"
            ) from None
        parts = batches(file, list(theirs_by_ours.values()), where)
        table = from_arrow(map(_as_table, parts), features, theirs_by_ours, where)
    else:
        unit = "row" if kind(path) == ".json" else "line"
        heard: dict[str, None] = {}  # a file may be read more than once: each note once
        table, lines = from_records(
            lambda: records(path, where, heard.setdefault),
            partial(columns.find, where=where),
            lambda number: f"{where}, {unit} {number}",
            lambda text: notes.append(f"{where}: {text}"),
        )
        notes.extend(heard)
    if table is None or not len(table):
        raise DataError("there are no rows in it", where=where, do="fill it, or leave it out")
    return table, lines


def _as_table(batch: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_batches([batch])


def _from_folder(folder: Path, columns: Columns, notes: list[str]) -> dict[str, Table]:
    try:
        there = sorted(folder.iterdir())
        files = [
            each for each in there if kind(each) in KINDS and each.name[0] != "." and each.is_file()
        ]
    except OSError as error:
        raise unreadable(error, folder, DataError) from None
    found: dict[str, list[Path]] = {}
    for file in files:
        if split := split_of(file):
            found.setdefault(split, []).append(file)
    if not found:
        raise DataError(
            "no train, dev or test file in the folder; it holds"
            f" {_listed([each.name for each in there])}",
            where=str(folder),
            do="name one of its files, or call them train.csv, dev.csv, test.csv (any format)",
        )
    others = [file.name for file in files if not any(file in paths for paths in found.values())]
    if others:
        notes.append(f"{folder}: {_listed(others)} not used")
    for split, paths in found.items():
        if len(paths) > 1 and not all(_SHARD.search(path.name) for path in paths):
            names = " and ".join(path.name for path in paths[:3])
            raise DataError(
                f"{names} could each be {split}", where=str(folder), do="leave one of them there"
            )
    return {split: _from_files(found[split], columns, notes) for split in SPLITS if split in found}


def _from_mapping(
    data: Mapping[Any, Any], name: str, columns: Columns, notes: list[str], join: str = ", "
) -> dict[str, Table]:
    """The splits of a DatasetDict, or of a plain dictionary of lists or data sets."""
    import datasets

    found: dict[str, Table] = {}
    for theirs, rows in data.items():
        ours = ALIASES.get(str(theirs), str(theirs))
        origin = f"{name}{join}{theirs}"
        if ours not in SPLITS or ours in found:
            notes.append(f"{origin} is not used")
        elif isinstance(rows, datasets.Dataset):
            found[ours] = _from_dataset(rows, origin, columns)
        elif isinstance(rows, (list, tuple)):
            found[ours] = _from_list(rows, origin, columns, notes)
        else:
            raise DataError(
                f"a split of type {type(rows).__name__} cannot be read",
                where=origin,
                do="give a list",
            )
    if not found:
        raise DataError(
            f"no train, dev or test split; it has {_listed([str(each) for each in data])}",
            where=name,
            do='give {"train": ..., "test": ...}',
        )
    return found


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
            (number, as_record(value, where(number))) for number, value in enumerate(data, start=1)
        )

    find: Callable[[list[str]], dict[str, str]] = partial(columns.find, where=origin)
    table, _ = from_records(numbered, find, where, notes.append)
    if table is None:
        raise DataError("there are no rows in it", where=origin, do="give at least one record")
    return Table(as_dataset(table), origin)


def _from_hub(name: str, columns: Columns, notes: list[str]) -> tuple[dict[str, Table], bool]:
    """A data set of the Hub through the `datasets` library's cache."""
    return _from_mapping(load_hub(name), name, columns, notes, join=":"), True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The libraries' progress bars and log lines off, and afterwards as they were."""
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
    """DataError where there is no such file or folder, and the name can be none of the Hub."""
    if exists(expanded(name)):
        return
    path = str(name).partition(":")[0]
    if kind(Path(name)) in KINDS or not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", path):
        raise DataError(
            "there is no such file or folder", where=str(name), do=_near_files(Path(name))
        )


def load_hub(name: str, **options: Any) -> Any:
    """The splits of a data set of the Hub, `owner/name` or `owner/name:configuration`, as
    `datasets` gives them.
    """
    import datasets

    refuse_missing(name)
    path, _, configuration = name.partition(":")
    # before version 4: never run a data set's code
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
    except Exception as error:  # whatever the network, the Hub and its data sets may do
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
    """The remedy for a file that is not there: the nearest names beside it."""
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
