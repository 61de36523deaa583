"""Finds the files of each split in a folder of labelled text, and the label of each file if the
folders are named after the labels.

| layout | labels |
|---|---|
| `train.csv`, `test.csv`; or `train/a.csv`, `test/b.csv` | in the files |
| `pos/1.txt`, `neg/1.txt` | `pos`, `neg`: one text per file |
| `train/pos/1.txt`, `test/pos/1.txt` | the same with splits (as IMDb is published) |
| `train.en`, `train.de`, `test.en`, `test.de` | in the files, aligned by line |
"""

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from langue.errors import DataError
from langue.files import unreadable
from langue.text.read.columns import listed
from langue.text.read.parallel import columns_of, listed_files, together
from langue.text.read.parse import KINDS, kind
from langue.text.read.table import ALIASES, SPLITS

# names of folders with unlabelled texts
_BARE = ("unsup", "unsupervised", "unlabeled", "unlabelled")
# a folder with one of these files is the output of training or preparation, and not input data
_MADE = ("langue.json", "corpus.json", "building.json", "tokenizer.json")
_PASSED_OVER = ("checkpoints", "__pycache__", "node_modules")
_SHARD = re.compile(r"-\d+-of-\d+")


@dataclass(frozen=True)
class Parts:
    """The parts of a split: files of rows, files of one column each, or texts labelled by their
    folder.
    """

    files: list[Path] = field(default_factory=list)
    parallel: list[Path] = field(default_factory=list)
    texts: list[tuple[Path, str]] = field(default_factory=list)


def passed_over(folder: Path) -> str:
    """Return the reason why a folder among data is skipped, in words; "" if it is read."""
    if folder.name.startswith("."):
        return "hidden"
    if folder.is_symlink():
        return "a link"
    if folder.name in _PASSED_OVER:
        return "no data"
    return made(folder)


def made(folder: Path) -> str:
    """Describe a folder that training or preparation created; "" for any other folder."""
    found = next((name for name in _MADE if (folder / name).is_file()), None)
    if found is None:
        return ""
    return "a run" if found == "langue.json" else f"a model or a corpus, as its {found} says"


def divided(
    folder: Path,
    split_of: Callable[[Path], str | None],
    may_be: Callable[[Sequence[str]], bool],
    notes: list[str],
) -> dict[str, Parts]:
    """Return the parts of each split, or "all" if the folder is not divided.

    split_of: returns the split that a file's name says. may_be: returns whether columns of these
    names may be the requested ones.
    """
    try:
        there = sorted(folder.iterdir())
        folders = [each for each in there if each.is_dir()]
        files = [each for each in there if _is_data(each)]
    except OSError as error:
        raise unreadable(error, folder, DataError) from None
    groups = [each for each in together(there).values() if may_be(list(columns_of(each)))]
    in_groups = [file for paths in groups for file in paths]
    by_split = _by_split([[file] for file in files if file not in in_groups], split_of, folder)
    found = {split: Parts(files=sum(those, [])) for split, those in by_split.items()}
    if not found:
        by_split = _by_split(groups, split_of, folder)
        found = {split: Parts(parallel=those[0]) for split, those in by_split.items()}
    if found:
        used = [file for part in found.values() for file in (*part.files, *part.parallel)]
        others = [each.name for each in sorted({*files, *in_groups}) if each not in used]
        if others:
            notes.append(f"{folder}: {listed(others)} not used")
        return found
    for each in folders:
        split = ALIASES.get(each.name.lower(), each.name.lower())
        if split in SPLITS and (parts := _of_split(each, notes)):
            found[split] = parts
    if not found and (texts := _by_label(folder, notes)):
        found["all"] = Parts(texts=texts)
    if found:
        return found
    raise DataError(
        f"no train, dev or test file in the folder; it holds {listed([f.name for f in there])}",
        where=str(folder),
        do=_remedy(groups),
    )


def _remedy(groups: Sequence[Sequence[Path]]) -> str:
    """Return what to do about a folder whose files have other names."""
    do = "name one of its files, or call them train.csv, dev.csv, test.csv (any format)"
    if not groups:
        return do
    option = f"--data {shlex.quote(str(groups[0][0]))}"
    return f"{do}; {option} reads {listed_files(groups[0])} line by line"


def _by_split(
    named: Sequence[list[Path]], split_of: Callable[[Path], str | None], folder: Path
) -> dict[str, list[list[Path]]]:
    """Return the files of each split; raise DataError if there are several candidates that are not
    shards.
    """
    found: dict[str, list[list[Path]]] = {}
    for paths in named:
        if split := split_of(paths[0]):
            found.setdefault(split, []).append(paths)
    for split, those in found.items():
        if len(those) > 1 and not all(_SHARD.search(paths[0].name) for paths in those):
            names = " and ".join(path.name for paths in those[:3] for path in paths)
            raise DataError(
                f"{names} could each be {split}", where=str(folder), do="leave one of them there"
            )
    return found


def _is_data(path: Path) -> bool:
    return kind(path) in KINDS and path.name[0] != "." and path.is_file()


def _of_split(folder: Path, notes: list[str]) -> Parts | None:
    texts = _by_label(folder, notes)
    if texts:
        return Parts(texts=texts)
    files = [each for each in sorted(folder.iterdir()) if _is_data(each)]
    return Parts(files=files) if files else None


def _by_label(folder: Path, notes: list[str]) -> list[tuple[Path, str]]:
    """Return the texts in subfolders with the names of these; empty if fewer than two
    contain any.
    """
    found: dict[str, list[Path]] = {}
    for each in sorted(folder.iterdir()):
        if not each.is_dir():
            continue
        why = passed_over(each)
        if why:
            notes.append(f"{each}: {why}, not read")
            continue
        texts = [file for file in sorted(each.iterdir()) if _is_data(file) and kind(file) == ".txt"]
        if texts and each.name.lower() in _BARE:
            notes.append(f"{each}: {len(texts):,} texts without a label are not read")
        elif texts:
            found[each.name] = texts
    if len(found) < 2:
        return []
    return [(file, label) for label, files in found.items() for file in files]
