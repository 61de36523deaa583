"""Matches the columns that a task asks for with those of a file, or raises an error that names the
option which specifies them.
"""

import difflib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from langue.errors import DataError
from langue.text.read.form import Form
from langue.text.read.table import ALL, INSTEAD, KEPT, PUBLISHED, TEXTS, alternatives

LONGEST_NAME = 40  # in characters; a longer field of a header is considered data
SHOWN = 12  # maximum number of columns that an error lists


class NoTarget(DataError):
    """Raised for a table that has the inputs of a task but not its target."""


@dataclass(frozen=True)
class Columns:
    """The columns to read, by our names, and their names in the file if they differ."""

    need: tuple[str, ...]
    optional: tuple[str, ...]
    renamed: dict[str, str]
    # common names, likeliest first: suggested in errors, and never used without being requested
    synonyms: Mapping[str, Sequence[str]] = field(default_factory=dict)
    encoding: str | None = None  # encoding of files that are not UTF-8

    @property
    def form(self) -> Form:
        names = self.renamed.values()
        are_numbers = all(re.fullmatch("[1-9][0-9]*", name) for name in names)
        return Form(self.encoding, frozenset(names if are_numbers else ()))

    def may_be(self, there: Sequence[str]) -> bool:
        """Return whether files with these names are likely to be the columns of one table."""
        return "source" in self.need or len(self._found(self.need, there)) == len(self.need)

    def find(self, there: Sequence[str], where: str, of_line: bool = False) -> dict[str, str]:
        """Return our name -> the file's name of each column that exists.

        Raises DataError with a remedy if a column is missing. of_line: the names are from the first
        line of a file, which may be data rather than a header.
        """
        asked = list(dict.fromkeys(self.need + self.optional))
        found = self._found(asked, there)
        has_others = False
        if any(ours in INSTEAD and ours not in found for ours in self.need):
            for others in alternatives(self.need):
                instead = self._found(others, there)
                has_others = len(instead) == len(others)
                if has_others:
                    found |= instead
                    break
        missing = []
        for ours in asked:
            is_asked = ours in self.need or ours in self.renamed
            is_replaced = has_others and ours in INSTEAD
            if ours not in found and is_asked and not is_replaced:
                missing.append(ours)
        if missing:
            _check_are_strings(there, where)
            taken = set(found.values())
            free = [name for name in there if name and name not in taken]
            raise self._missing(missing, free, there, where, of_line)
        if f"{KEPT}{ALL}" in self.optional:
            taken = set(found.values())
            for name in there:
                if name and name not in taken:
                    found[f"{KEPT}{name}"] = name
        _check_are_different(found, there, where)
        return found

    def _found(self, names: Sequence[str], there: Sequence[str]) -> dict[str, str]:
        """Return our name -> the file's name of the columns that exist.

        A column is found by the name that the user gave, by our name, or by its published name if
        only one of these exists.
        """
        found = {}
        for ours in names:
            theirs = self.renamed.get(ours, ours)
            if theirs == ours and ours not in there:
                published = [name for name in PUBLISHED.get(ours, ()) if name in there]
                if len(published) != 1:
                    continue
                theirs = published[0]
            if theirs in there:
                found[ours] = theirs
        return found

    def _missing(
        self,
        missing: Sequence[str],
        free: Sequence[str],
        there: Sequence[str],
        where: str,
        of_line: bool,
    ) -> DataError:
        """Return the error that names the missing columns, with the option that specifies them."""
        names = " and ".join(repr(self.renamed.get(ours, ours)) for ours in missing)
        what = f"there is no column {names}; its columns are {listed(there)}"
        if all(ours.startswith(KEPT) for ours in missing):
            return DataError(
                what, where=where, do="name with --keep what is there, or leave it out"
            )
        likely = self._likely(missing, free)
        guess = {ours: likely.get(ours, "NAME") for ours in missing}
        do = f"say which it is with {_option(guess)}"
        if not (likely or of_line) and len(missing) == len(free) == 2:
            one = _option(dict(zip(missing, free, strict=True)))
            other = _option(dict(zip(missing, reversed(free), strict=True)))
            do = f"say which is which, with {one} or {other}"
        is_none_known = len(free) == len(there)
        may_be_data = not likely or any(map(_is_no_name, there))
        if of_line and is_none_known and may_be_data and len(there) >= len(self.need):
            what = f"there is no column {names}; its first line is {listed(there)}"
            numbers = _option(_by_number(self.need, there))
            do = f"if that line is a row, name columns by number: {numbers}; if it names them, {do}"
        elif there == ["text"] and where.endswith(".txt") and len(missing) == 1:
            target = missing[0]
            option = _option({"text": "1", target: "2"})
            paste = f"paste {shlex.quote(where)} {target.upper()}S.txt > both.tsv"
            do = f"where each line has its {target} in another file: {paste}, then {option}"
        has_inputs = len(missing) < len(self.need) and TEXTS.isdisjoint(missing)
        kind = NoTarget if has_inputs else DataError
        return kind(what, where=where, do=do)

    def _likely(self, missing: Sequence[str], free: Sequence[str]) -> dict[str, str]:
        """Return our name -> a likely name among the free ones: a common synonym, or else one that
        is spelt similarly or contains our name.

        No name is suggested twice.
        """
        left = {name.lower(): name for name in free}
        likely: dict[str, str] = {}
        for ours in missing:
            for name in self.synonyms.get(ours, ()):
                if name in left:
                    likely[ours] = left.pop(name)
                    break
        for ours in missing:
            if ours in likely:
                continue
            similar = self._similar(ours, list(left))
            if similar:
                likely[ours] = left.pop(similar[0])
        return likely

    def _similar(self, ours: str, names: Sequence[str]) -> list[str]:
        """Return the names that resemble that of a column, best first, without those that are
        common for other columns.
        """
        asked = self.renamed.get(ours, ours).lower()
        of_others: set[str] = set()
        for other, usual in self.synonyms.items():
            if other != ours:
                of_others.update(usual)
        possible = [name for name in names if name not in of_others or name == asked]
        found = difflib.get_close_matches(asked, possible, 1, 0.6)
        for word in (asked, *self.synonyms.get(ours, ())):
            for name in possible:
                parts = re.split(r"[\W_]", name)
                if word in parts:
                    found.append(name)
        return found


def _check_are_strings(names: Sequence[str], where: str) -> None:
    for name in names:
        if not isinstance(name, str):
            raise DataError(
                f"a column is called {name!r}, no string",
                where=where,
                do='write {"text": "...", ...}',
            )


def _check_are_different(found: Mapping[str, str], there: Sequence[str], where: str) -> None:
    """Raise DataError if two columns have the name of one that is read."""
    names = list(there)
    for theirs in found.values():
        if names.count(theirs) > 1:
            raise DataError(
                f"two columns are called {theirs!r}",
                where=where,
                do="give each column its own name",
            )


def _by_number(need: Sequence[str], fields: Sequence[str]) -> dict[str, str]:
    """Guess numbers for the columns of a file without a header: texts are its longest fields."""
    by_length = sorted(range(len(fields)), key=lambda index: -len(fields[index]))
    texts = [ours for ours in need if ours in TEXTS]
    others = [ours for ours in need if ours not in TEXTS]
    longest = by_length[: len(texts)]
    rest = by_length[len(texts) :]
    numbers = {}
    for ours, index in zip(texts, longest, strict=False):
        numbers[ours] = str(index + 1)
    for ours, index in zip(others, reversed(rest), strict=False):
        numbers[ours] = str(index + 1)
    return numbers


def _option(theirs_by_ours: Mapping[str, str]) -> str:
    """Return the command-line option that specifies columns."""
    named = ",".join(f"{ours}={theirs}" for ours, theirs in theirs_by_ours.items())
    return f"--columns {shlex.quote(named)}"


def _is_no_name(field: str) -> bool:
    is_number = re.fullmatch(r"[-+]?\d+([.,]\d+)?", field) is not None
    return len(field) > LONGEST_NAME or is_number


def listed(names: Sequence[str]) -> str:
    """Format the first names for an error, and truncate long ones."""
    shown = []
    for name in map(str, names[:SHOWN]):
        shown.append(name if len(name) <= 30 else name[:29] + "…")
    more = ""
    if len(names) > SHOWN:
        more = f" and {len(names) - SHOWN} more"
    return ", ".join(shown) + more or "none"
