"""Resolves the name of a source of running text to its weight and its files by split."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from langue.errors import DataError
from langue.files import unreadable
from langue.text.read.columns import listed
from langue.text.read.folders import made, passed_over
from langue.text.read.open import ALIASES, exists, expanded, split_of
from langue.text.read.parse import CONLL, KINDS, kind

Rows = TypeVar("Rows")
# the formats that may hold running text
OF_TEXT = tuple(each for each in KINDS if each not in CONLL)

SHOWN = 12  # maximum number of skipped folders and files that are named


def weighed(word: str) -> tuple[str, float]:
    """Split `PATH@1.5` into ("PATH", 1.5)."""
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
    """Return the text files of a folder by the split that their names say, by default train."""
    found: dict[str, list[Path]] = {}
    others = 0
    skipped: list[str] = []
    try:
        everything = [] if made(folder) else _walk(folder, folder, skipped)
    except OSError as error:
        raise unreadable(error, folder, DataError) from None
    for path in everything:
        if kind(path) not in KINDS:
            others += 1
            continue
        found.setdefault(split_of(path) or "train", []).append(path)
    if skipped:
        more = f" and {len(skipped) - SHOWN:,} more" if len(skipped) > SHOWN else ""
        notes.append(f"{folder}: not read: {', '.join(skipped[:SHOWN])}{more}")
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
            f"it is {made(folder)}" if made(folder) else "no file of text in the folder",
            where=str(folder),
            do=f"its files must end in {' '.join(OF_TEXT)}",
        )
    return found


def _walk(folder: Path, root: Path, skipped: list[str]) -> list[Path]:
    """Return the files in and below a folder, without hidden ones and the output of training.

    Skipped folders are added to `skipped` with the reason.
    """
    files: list[Path] = []
    for each in sorted(folder.iterdir()):
        if each.is_dir():
            why = passed_over(each)
            if why:
                skipped.append(f"{each.relative_to(root)} ({why})")
            else:
                files += _walk(each, root, skipped)
        elif not each.name.startswith(".") and each.is_file():
            files.append(each)
    return files


def for_training(
    found: dict[str, list[Path]], folder: Path, notes: list[str]
) -> dict[str, list[Path]]:
    """Leave out the files that their names mark as test data, unless there are no others."""
    if "train" not in found:
        return {"train": [path for paths in found.values() for path in paths]}
    by_name = "by the names; to train on them, name the files themselves"
    if tests := found.pop("test", []):
        notes.append(f"{folder}: {listed([p.name for p in tests])} left out as test, {by_name}")
    if held := found.get("dev"):
        notes.append(f"{folder}: {listed([p.name for p in held])} held out as dev, {by_name}")
    return found


def only(splits: Mapping[str, Rows], asked: str | None, where: str, notes: list[str]) -> Rows:
    """Return the requested split; None: train.

    test is the held-out split: test if it exists, otherwise dev, and the whole text if it is not
    divided.
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
