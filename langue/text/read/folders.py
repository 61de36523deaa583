"""What arrives: a folder of labelled text. What leaves: the files of each split, and the label of
each where the folders are the labels.

| layout | labels |
|---|---|
| `train.csv`, `test.csv`; or `train/a.csv`, `test/b.csv` | in the files |
| `pos/1.txt`, `neg/1.txt` | `pos`, `neg`: a text a file |
| `train/pos/1.txt`, `test/pos/1.txt` | the same, divided (as IMDb is published) |
| `train.en`, `train.de`, `test.en`, `test.de` | in the files, line by line |
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

# of texts that nobody has labelled
_BARE = ("unsup", "unsupervised", "unlabeled", "unlabelled")
# a folder with one of these was made by training or of text, and is no data to read
_MADE = ("langue.json", "corpus.json", "building.json", "tokenizer.json")
_PASSED_OVER = ("checkpoints", "__pycache__", "node_modules")
_SHARD = re.compile(r"-\d+-of-\d+")


@dataclass(frozen=True)
class Parts:
    """What is read of a split: files of rows, files of a column each, or texts with the label that
    their folder says.
    """

    files: list[Path] = field(default_factory=list)
    parallel: list[Path] = field(default_factory=list)
    texts: list[tuple[Path, str]] = field(default_factory=list)


def passed_over(folder: Path) -> str:
    """Why a folder that is found among data is not read, in words; "" where it is."""
    if folder.name.startswith("."):
        return "hidden"
    if folder.is_symlink():
        return "a link"
    if folder.name in _PASSED_OVER:
        return "no data"
    return made(folder)


def made(folder: Path) -> str:
    """What a folder is that training made, in words; "" where it is another one."""
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
    """The parts of each split; "all" where the folder is not divided. split_of: what a file's name
    says; may_be: whether columns of these names may be what is asked for.
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
    """What to do with a folder of files of other names."""
    do = "name one of its files, or call them train.csv, dev.csv, test.csv (any format)"
    if not groups:
        return do
    option = f"--data {shlex.quote(str(groups[0][0]))}"
    return f"{do}; {option} reads {listed_files(groups[0])} line by line"


def _by_split(
    named: Sequence[list[Path]], split_of: Callable[[Path], str | None], folder: Path
) -> dict[str, list[list[Path]]]:
    """The files of each split; a DataError where several, which are no shards, could be one."""
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
    """The texts below a folder with the names of their folders; none where fewer than two hold
    any.
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
