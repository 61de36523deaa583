"""Reads labelled data from a file, a folder of train/dev/test files, a Hub name, a list of records
or a `datasets.Dataset`.

The result is a `Source` of tables whose columns have our names and whose rows know their location
in their file. Rows are stored by the `datasets` library: memory-mapped if there are many, and in
its cache if they are from the Hub. A local file is read anew each time, so that edits take effect.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from langue.errors import DataError
from langue.text.read.split import (
    all_seen,
    are_several,
    class_numbers,
    divide,
    divide_groups,
    firsts_of_labels,
    hold_out,
    hold_out_groups,
    nested_order,
    with_seen_labels,
)
from langue.text.read.table import (
    SPLITS,
    TEXTS,
    Source,
    Table,
    alternatives,
    as_dataset,
    present,
)

__all__ = ["Source", "Table", "read"]

LOOKED_AT = 1000  # number of rows that are checked for mojibake
_NO_SYNONYMS: Mapping[str, Sequence[str]] = MappingProxyType({})


def read(
    data: Any,
    *,
    columns: Mapping[str, str] | None = None,
    need: Sequence[str] = (),
    optional: Sequence[str] = (),
    stratify: str | None = None,
    together: str | None = None,
    dev_fraction: float = 0.1,
    test_fraction: float = 0.1,
    dev_max: int = 2000,
    seed: int = 0,
    split: bool = True,
    fold: tuple[int, int] | None = None,
    share: float | None = None,
    invalid: Literal["error", "drop", "keep"] = "error",
    synonyms: Mapping[str, Sequence[str]] = _NO_SYNONYMS,
    encoding: str | None = None,
    decimal_comma: bool | None = None,
) -> Source:
    """Read labelled text; every problem with a file is a DataError with file, line and remedy.

    columns: ours -> theirs, `{"text": "review"}`. need, optional: the columns to keep, by our
    names.

    If dev is missing, dev_fraction of the training rows, at most dev_max, become dev; if test is
    missing too, test_fraction of all rows become test first. The split is stratified by the labels
    in `stratify`, or keeps rows with the same value of the column `together` together. split=False:
    nothing is split off, and data without splits is the test split. fold: (number, number of
    folds): that part of the training rows becomes test, in place of any existing test. share: the
    fraction of the remaining training rows to use; a smaller share is a subset of a larger one.

    invalid: what to do about a row with an empty text: raise an error, drop and count it, or keep
    it, for callers that must give an answer to every row. synonyms: common names of the columns,
    for the remedy. encoding: of files that are not UTF-8. decimal_comma: whether numbers have a
    decimal comma; None: they do if semicolons separate the columns.
    """
    from langue.text.read.open import Columns, quiet, tables

    for name, theirs in (columns or {}).items():
        if not isinstance(theirs, str):
            raise DataError(
                f"columns: {name} = {theirs!r} is no column's name",
                do='write it as text = "review"',
            )
        known = list(dict.fromkeys([*need, *optional, *synonyms]))
        if name not in known and (near := difflib.get_close_matches(name, known, 1, 0.75)):
            raise DataError(
                f"--columns: {name!r} is no column of ours ({', '.join(known)})",
                do=f"did you mean {near[0]}?",
            )
        # If targets are not read, as in prediction, their column's name is irrelevant.
        read_too = {*need, *optional, *chain.from_iterable(alternatives(need))}
        if name not in read_too and (name in TEXTS or not TEXTS.issuperset(need)):
            taken = ", ".join((*need, *optional))
            raise DataError(
                f"--columns: {name} is not read here, but {taken}",
                do=f"leave {name} out, or see --task",
            )
    notes: list[str] = []
    with quiet():
        asked = Columns(tuple(need), tuple(optional), dict(columns or {}), synonyms, encoding)
        found, divided = tables(data, asked, notes)
        if decimal_comma is not None:
            found = {k: replace(table, decimal_comma=decimal_comma) for k, table in found.items()}
        chosen = {name: theirs for name, theirs in (columns or {}).items() if name in need}
        found = {name: _with_languages(each, need, chosen, notes) for name, each in found.items()}
        found = {
            name: _with_annotations(_with_texts(table, need, invalid, notes), invalid, notes)
            for name, table in found.items()
        }
        found = {
            name: table for name, table in found.items() if _has_targets(name, table, need, notes)
        }
        for table in found.values():
            notes.extend(_misread(table))
        if not split:
            return Source(
                notes=notes,
                **dict.fromkeys(SPLITS) | (found if divided else {"test": found["train"]}),
            )
        if fold is not None and "train" in found:
            _hold_fold(found, fold, seed, stratify, together, notes)
        shares = {"test": test_fraction} if "dev" not in found and "test" not in found else {}
        shares |= {"dev": dev_fraction} if "dev" not in found else {}
        if "train" in found:
            _carve(found, shares, dev_max, seed, stratify, together, notes)
        if share is not None and "train" in found:
            _take_share(found, share, seed, stratify, notes)
    return Source(notes=notes, **dict.fromkeys(SPLITS) | found)


def _with_texts(table: Table, need: Sequence[str], invalid: str, notes: list[str]) -> Table:
    """Return the table without rows whose text is empty, or raise an error at the first; an
    optional text column that is empty in all rows is removed.
    """
    import pyarrow.compute as pc

    needed = present(need, table)
    for name in [each for each in table.rows.column_names if each in TEXTS]:
        chunks = table.arrow(name).chunks
        blank = [
            pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(chunk)), 0).fill_null(True)
            for chunk in chunks
        ]
        empty = np.concatenate([each.to_numpy(zero_copy_only=False) for each in blank]).astype(bool)
        if name not in needed and empty.all():
            table = replace(table, rows=table.rows.remove_columns([name]))
            continue
        if invalid == "keep":
            continue
        bad = np.flatnonzero(empty)
        if len(bad) and invalid == "error":
            more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
            raise DataError(
                f"the {name} is empty{more}",
                where=table.where(int(bad[0])),
                do="fill it in or take it out (in training: data.invalid=drop)",
            )
        if len(bad):
            notes.append(
                f"{table.origin}: {_rows(len(bad))} dropped for an empty {name}, first"
                f" {table.where(bad[0])}"
            )
            table = table.select(np.flatnonzero(~empty))
        if not len(table):
            raise DataError(
                f"every {name} is empty",
                where=table.origin,
                do="name another column with --columns",
            )
    return table


def _misread(table: Table) -> list[str]:
    """Return notes if the first texts were previously decoded in a wrong encoding."""
    from langue.text.read.encodings import misread_note

    first = table.select(np.arange(min(len(table), LOOKED_AT)))
    named = sorted(TEXTS.intersection(table.rows.column_names))
    return misread_note(chain.from_iterable(map(first.column, named)), table.origin)


def _with_languages(
    table: Table, need: Sequence[str], chosen: Mapping[str, str], notes: list[str]
) -> Table:
    """Convert texts in several languages, `{"en": ..., "de": ...}`, to source and target columns.

    chosen: the languages of source and target, if the user named them; by default the first two, in
    their order.
    """
    if "translation" not in table.rows.column_names:
        return table
    import pyarrow as pa

    rows = table.column("translation")
    first = next((row for row in rows if isinstance(row, Mapping)), {})
    names = [name for name in ("source", "target") if name in need]
    free = iter([language for language in first if language not in chosen.values()])
    languages = {name: chosen.get(name) or next(free, None) for name in names}
    for name, language in languages.items():
        if language not in first:
            raise DataError(
                f"the texts of `translation` are in {', '.join(first) or 'no language'}, none of"
                f" which is the {name}",
                where=table.where(0),
                do=f"say which is: --columns {name}={next(iter(first), 'LANGUAGE')}",
            )
    if not chosen:
        turned = ",".join(f"{name}={each}" for name, each in zip(names, first, strict=False))
        said = ", ".join(f"{language} as the {name}" for name, language in languages.items())
        notes.append(f"{table.origin}: `translation` is read with {said} (--columns {turned})")
    made = {
        name: [None if row is None else row.get(language) for row in rows]
        for name, language in languages.items()
    }
    return replace(table, rows=as_dataset(pa.table(made)))


def _with_annotations(table: Table, invalid: str, notes: list[str]) -> Table:
    """Return the table without rows whose annotations do not match their text, or raise an error at
    the first.
    """
    from langue.text.read.annotations import faults

    names = [
        each for each in table.rows.column_names if each in ("text", "tokens", "tags", "spans")
    ]
    if invalid != "keep" and names != ["text"]:
        bad = list(faults({name: table.arrow(name) for name in names}))
        if bad:
            row, what, do = min(bad)
            more = f" (and {len(bad) - 1} more rows)" if len(bad) > 1 else ""
            if invalid == "error":
                raise DataError(what + more, where=table.where(row), do=do)
            rows = np.setdiff1d(np.arange(len(table)), [each for each, *_ in bad])
            notes.append(
                f"{table.origin}: {_rows(len(table) - len(rows))} dropped, first"
                f" {table.where(row)}: {what}"
            )
            if not len(rows):
                raise DataError(f"every row has such a fault: {what}", where=table.origin, do=do)
            table = table.select(rows)
    if "question" in table.rows.column_names and "id" in table.rows.column_names:
        twice = len(table) - len(set(table.column("id")))
        if twice:
            notes.append(f"{table.origin}: {_rows(twice)} with an id that another row has")
    return table


def _has_targets(split: str, table: Table, need: Sequence[str], notes: list[str]) -> bool:
    """Return whether a test split has its targets, since benchmarks publish theirs
    without labels.
    """
    if split != "test" or table.locate:
        return True
    targets = [name for name in present(need, table) if name not in TEXTS]
    bare = [name for name in targets if table.arrow(name).null_count == len(table)]
    if bare:
        notes.append(f"{table.origin} has no {bare[0]}s and is left out")
        return False
    return True


def _carve(
    found: dict[str, Table],
    shares: Mapping[str, float],
    dev_max: int,
    seed: int,
    stratify: str | None,
    together: str | None,
    notes: list[str],
) -> None:
    """Split the missing splits off train, test first, each a share of the original
    training rows.
    """
    total = len(found["train"])
    for after, (name, share) in zip(range(len(shares) - 1, -1, -1), shares.items(), strict=True):
        train = found["train"]
        if total < len(shares) + 1:
            raise DataError(
                f"{_rows(total)} cannot be divided into {len(shares) + 1} splits",
                where=train.origin,
                do="give more rows, or a folder with train, dev and test files",
            )
        wished = max(1, round(total * share))
        held_most = min(wished, dev_max) if name == "dev" else wished
        labels = (
            train.column(stratify)
            if stratify in train.rows.column_names and stratify is not None
            else []
        )
        classes = class_numbers(labels) if labels else None
        most = min(held_most, len(train) - 1 - after)
        how = f"the shares of each {stratify} kept" if classes is not None else "at random"
        groups = None
        if together is not None and together in train.rows.column_names:
            groups = hold_out_groups(train.column(together), most, seed, left=1 + after)
            how = f"at random, those of one {together} together" if groups else how
        kept, held = groups or hold_out(len(train), most, seed, classes)
        if are_several(labels):
            kept, held = all_seen(kept, held, labels)
        found["train"] = train.select(kept)
        found[name] = train.select(held)
        notes.append(f"{train.origin}: {_rows(len(held))} taken for {name}, {how} (seed {seed})")


def _classes(table: Table, stratify: str | None) -> tuple[list[Any], Any]:
    """Return the labels to stratify by and their classes; ([], None) if there are none."""
    if stratify is None or stratify not in table.rows.column_names:
        return [], None
    labels = table.column(stratify)
    return labels, class_numbers(labels)


def _hold_fold(
    found: dict[str, Table],
    fold: tuple[int, int],
    seed: int,
    stratify: str | None,
    together: str | None,
    notes: list[str],
) -> None:
    """Make one fold of the training rows the test split."""
    number, folds = fold
    train = found["train"]
    if len(train) < 2 * folds:
        raise DataError(
            f"{_rows(len(train))} cannot be divided into {folds} folds",
            where=train.origin,
            do="give more rows, or fewer folds",
        )
    labels, classes = _classes(train, stratify)
    if together is not None and together in train.rows.column_names:
        fold_of = divide_groups(train.column(together), folds, seed)
        if fold_of is None:
            raise DataError(
                f"there are fewer values of {together} than {folds} folds, and the rows of one"
                " stay together",
                where=train.origin,
                do="take fewer folds",
            )
    else:
        fold_of = divide(len(train), folds, seed, classes)
    kept = np.flatnonzero(fold_of != number - 1)
    held = np.flatnonzero(fold_of == number - 1)
    stay = int((fold_of < 0).sum())
    if are_several(labels):
        before = len(held)
        kept, held = with_seen_labels(kept, held, labels)
        stay = before - len(held)
    if "test" in found:
        notes.append(f"{found['test'].origin}: not looked at, as folds are judged")
    found["train"] = train.select(kept)
    found["test"] = train.select(held)
    more = f"; {_rows(stay)} of a {stratify} that no other has are in no fold" if stay else ""
    notes.append(
        f"{train.origin}: {_rows(len(held))} are fold {number} of {folds} and test (seed {seed})"
        + more
    )


def _take_share(
    found: dict[str, Table], share: float, seed: int, stratify: str | None, notes: list[str]
) -> None:
    """Keep a share of the training rows, with at least one row of each label."""
    train = found["train"]
    labels, classes = _classes(train, stratify)
    order = nested_order(len(train), seed, classes)
    count = max(1, round(len(train) * share))
    chosen = order[:count]
    # the first of each class, so that every evaluated class was seen in training
    if classes is not None:
        _, firsts = np.unique(classes[order], return_index=True)
        chosen = np.union1d(chosen, order[firsts])
    if are_several(labels):
        chosen = np.union1d(chosen, firsts_of_labels(order, labels))
    found["train"] = train.select(np.sort(chosen))
    notes.append(
        f"{train.origin}: {len(chosen):,} of {_rows(len(train))} are trained on (data.share ="
        f" {share:g})"
    )


def _rows(number: int) -> str:
    return f"{number:,} row" + ("" if number == 1 else "s")
