"""What arrives: the name of a source of running text. What leaves: its weight, and its files by
split.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from langue.errors import DataError
from langue.files import unreadable
from langue.text.read.open import ALIASES, exists, expanded, split_of
from langue.text.read.parse import CONLL, KINDS, kind

Rows = TypeVar("Rows")
# the formats that may hold running text
OF_TEXT = tuple(each for each in KINDS if each not in CONLL)
# a folder with one of these was made of text, is none
_MADE = ("corpus.json", "building.json", "tokenizer.json")


def weighed(word: str) -> tuple[str, float]:
    """`PATH@1.5` as ("PATH", 1.5)."""
    name, at, tail = word.rpartition("@")
    if not at or not re.fullmatch(r"[-+.\deE]+|nan|inf", tail) or exists(expanded(word)):
        return word, 1.0
    try:
        weight = float(tail)
    except ValueError:
        return word, 1.0
    if not (0 < weight <= 1000 and math.isfinite(weight)):
        raise DataError(
            f"a weight of {tail} cannot be used",
            where=name,
            do="give one above 0, such as @0.5 or @2",
        )
    return name, weight


def files_of(folder: Path, notes: list[str]) -> dict[str, list[Path]]:
    """The files of text, by the split that their names say; train where they say none."""
    found: dict[str, list[Path]] = {}
    others = 0
    try:
        everything = sorted(each for each in folder.rglob("*") if each.is_file())
    except OSError as error:
        raise unreadable(error, folder, DataError) from None
    made = {path.parent for path in everything if path.name in _MADE}
    for path in everything:
        if path.parent in made or any(
            part.startswith(".") for part in path.relative_to(folder).parts
        ):
            continue
        if kind(path) not in KINDS:
            others += 1
            continue
        found.setdefault(split_of(path) or "train", []).append(path)
    if others:
        notes.append(f"{folder}: {others:,} files of other kinds are not read")
    if not found and (folder / "corpus.json").is_file():
        raise DataError(
            "a corpus that was made cannot be mixed or tokenised again",
            where=str(folder),
            do=(
                "name the texts that it was made of, which are mixed so: langue data tokenize A@2 B"
                " --out CORPUS"
            ),
        )
    if not found:
        raise DataError(
            "no file of text in the folder",
            where=str(folder),
            do=f"its files must end in {' '.join(OF_TEXT)}",
        )
    return found


def for_training(
    found: dict[str, list[Path]], folder: Path, notes: list[str]
) -> dict[str, list[Path]]:
    """Files that their names say are for testing are left out unless there are no others."""
    if "train" not in found:
        return {"train": [path for paths in found.values() for path in paths]}
    if tests := found.pop("test", []):
        notes.append(
            f"{folder}: {', '.join(path.name for path in tests[:3])} left out, to be tested on"
        )
    return found


def only(splits: Mapping[str, Rows], asked: str | None, where: str, notes: list[str]) -> Rows:
    """The split that is asked for; None: train. test is what was held out: test where there is one,
    else dev, and where the text is not divided all of it.
    """
    there = {ALIASES.get(str(name), str(name)): rows for name, rows in splits.items()}
    likely = {None: ("train",), "test": ("test", "dev", "train")}.get(asked, (asked,))
    chosen = next((name for name in likely if name in there), None)
    if chosen is None:
        raise DataError(
            f"there is no split {likely[0]!r}", where=where, do=f"there are: {', '.join(there)}"
        )
    if len(there) > 1 and asked is not None:
        notes.append(f"{where}: its {chosen} split is read")
    return there[chosen]
