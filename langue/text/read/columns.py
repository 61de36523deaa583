"""What arrives: the columns that a task asks for, and those that a file has. What leaves: which is
which, or an error whose remedy names them.
"""

import difflib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from langue.errors import DataError
from langue.text.read.form import Form
from langue.text.read.table import ALL, INSTEAD, KEPT, PUBLISHED, TEXTS, alternatives

LONG = 40  # characters that no name of a column has


class NoTarget(DataError):
    """A table has what is predicted from, and not what is predicted."""


@dataclass(frozen=True)
class Columns:
    """Which columns are read, by our names, and what theirs are called where that differs."""

    need: tuple[str, ...]
    optional: tuple[str, ...]
    renamed: dict[str, str]
    # what people call them, likeliest first: for the remedy only, never taken by itself
    synonyms: Mapping[str, Sequence[str]] = field(default_factory=dict)
    encoding: str | None = None  # of files that are not UTF-8

    @property
    def form(self) -> Form:
        names = self.renamed.values()
        by_number = names and all(re.fullmatch("[1-9][0-9]*", name) for name in names)
        return Form(self.encoding, frozenset(names if by_number else ()))

    def may_be(self, there: Sequence[str]) -> bool:
        """Whether files that are called so are likely to be columns of one table."""
        return "source" in self.need or len(self._found(self.need, there)) == len(self.need)

    def find(self, there: Sequence[str], where: str, of_line: bool = False) -> dict[str, str]:
        """ours -> theirs of the columns among those that are there; a DataError with the
        remedy for others. of_line: they stand in a file's first line, which may be no header.
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
            free = [name for name in there if name and name not in found.values()]
            raise self._missing(missing, free, there, where, of_line)
        if f"{KEPT}{ALL}" in self.optional:
            taken = set(found.values())
            found |= {f"{KEPT}{name}": name for name in there if name and name not in taken}
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

    def _missing(
        self,
        missing: Sequence[str],
        free: Sequence[str],
        there: Sequence[str],
        where: str,
        of_line: bool,
    ) -> DataError:
        names = " and ".join(repr(self.renamed.get(ours, ours)) for ours in missing)
        what = f"there is no column {names}; its columns are {listed(there)}"
        if all(ours.startswith(KEPT) for ours in missing):
            return DataError(
                what, where=where, do="name with --keep what is there, or leave it out"
            )
        likely = self._likely(missing, free)
        do = f"say which it is with {_option({o: likely.get(o, 'NAME') for o in missing})}"
        if not (likely or of_line) and len(missing) == len(free) == 2:
            one, other = (_option(dict(zip(missing, by, strict=True))) for by in (free, free[::-1]))
            do = f"say which is which, with {one} or {other}"
        none_known = len(free) == len(there) and (not likely or any(map(_is_no_name, there)))
        if of_line and none_known and len(there) >= len(self.need):
            what = f"there is no column {names}; its first line is {listed(there)}"
            numbers = _option(_by_number(self.need, there))
            do = f"if that line is a row, name columns by number: {numbers}; if it names them, {do}"
        elif there == ["text"] and where.endswith(".txt") and len(missing) == 1:
            option = _option({"text": "1", missing[0]: "2"})
            paste = f"paste {shlex.quote(where)} {missing[0].upper()}S.txt > both.tsv"
            do = f"where each line has its {missing[0]} in another file: {paste}, then {option}"
        has_inputs = len(missing) < len(self.need) and TEXTS.isdisjoint(missing)
        return (NoTarget if has_inputs else DataError)(what, where=where, do=do)

    def _likely(self, missing: Sequence[str], free: Sequence[str]) -> dict[str, str]:
        """ours -> theirs of those that are guessed: what people call them, then what is spelt
        alike or holds our name. Each is taken once, and none that is another's by name.
        """
        left = {name.lower(): name for name in free}
        likely: dict[str, str] = {}
        for ours in missing:
            known = next((name for name in self.synonyms.get(ours, ()) if name in left), None)
            if known is not None:
                likely[ours] = left.pop(known)
        for ours in missing:
            if ours in likely:
                continue
            others = {
                name for each, those in self.synonyms.items() if each != ours for name in those
            }
            asked = self.renamed.get(ours, ours).lower()
            possible = [name for name in left if name not in others or name == asked]
            near = difflib.get_close_matches(asked, possible, 1, 0.6)
            words = (asked, *self.synonyms.get(ours, ()))
            near += [
                name for word in words for name in possible if word in re.split(r"[\W_]", name)
            ]
            if near:
                likely[ours] = left.pop(near[0])
        return likely


def _by_number(need: Sequence[str], fields: Sequence[str]) -> dict[str, str]:
    """Numbers for the columns of a file without a header: texts are its longest fields."""
    by_length = sorted(range(len(fields)), key=lambda at: -len(fields[at]))
    texts = [ours for ours in need if ours in TEXTS]
    others = [ours for ours in need if ours not in TEXTS]
    numbers = {ours: str(at + 1) for ours, at in zip(texts, by_length, strict=False)}
    rest = [at for at in reversed(by_length) if str(at + 1) not in numbers.values()]
    return numbers | {ours: str(at + 1) for ours, at in zip(others, rest, strict=False)}


def _option(theirs_by_ours: Mapping[str, str]) -> str:
    """The words of the command line that name columns."""
    named = ",".join(f"{ours}={theirs}" for ours, theirs in theirs_by_ours.items())
    return f"--columns {shlex.quote(named)}"


def _is_no_name(field: str) -> bool:
    return len(field) > LONG or re.fullmatch(r"[-+]?\d+([.,]\d+)?", field) is not None


def listed(names: Sequence[str]) -> str:
    shown = [name if len(name) <= 30 else name[:29] + "…" for name in map(str, names[:12])]
    return ", ".join(shown) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "none"
