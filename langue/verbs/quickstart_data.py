"""Build the data set of the quickstart: docstrings of the standard library, labelled by package.

The source files of the running Python are parsed, and never run. The docstrings are split into
train/dev/test. Three measures keep the scores honest. The names of the labels are masked in every
text, so that no text contains its answer. Docstrings of one module (of one class, in packages with
few modules) stay in one split, because neighbours are often near-duplicates. Exact and near
duplicates of training texts are removed from dev and test.
"""

import ast
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from langue.errors import DataError
from langue.text.quality.duplicates import find

# Packages with enough docstrings in every supported Python, including Debian's split one. The
# module `decimal` itself is written in C.
PACKAGES = {
    "asyncio": "asyncio",
    "decimal": "_pydecimal",
    "email": "email",
    "http": "http",
    "importlib": "importlib",
    "logging": "logging",
    "mailbox": "mailbox",
    "multiprocessing": "multiprocessing",
    "turtle": "turtle",
    "unittest": "unittest",
    "urllib": "urllib",
    "xml": "xml",
}
MASK = "_"
SHORTEST = 20  # minimum number of characters of a docstring
FEWEST = 40  # minimum number of docstrings of a label; with fewer, the library is incomplete
FEW_MODULES = 8  # packages with fewer modules are split by class
HELD_OUT = {"dev": 0.1, "test": 0.2}  # shares, filled with whole groups; the rest is train

Row = dict[str, str]
_NAMES = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(PACKAGES)})(?![A-Za-z])")


def build(seed: int = 0, library: Path | None = None) -> dict[str, list[Row]]:
    """Return `{"train": [{"text", "label", "module"}, ...], "dev": ..., "test": ...}`, which
    depends only on the seed and the Python version.

    library: the folder of the standard library; None: that of the running Python. Raises DataError
    if sources are missing.
    """
    root = library or Path(sysconfig.get_path("stdlib"))
    splits: dict[str, list[Row]] = {"train": [], "dev": [], "test": []}
    seen: set[str] = set()
    for label, package in PACKAGES.items():
        groups = _groups(root, label, package, seen)
        if sum(len(rows) for rows in groups.values()) < FEWEST:
            raise DataError(
                f"the sources of the standard library's {package} are not there",
                where=str(root),
                do="use a Python that is installed with its .py files",
            )
        for name, rows in _divide(groups, random.Random(f"{seed} {label}")).items():
            splits[name] += rows
    for name in HELD_OUT:
        splits[name] = _without_copies(splits["train"], splits[name])
    for name, rows in splits.items():
        random.Random(f"{seed} {name}").shuffle(rows)
    return splits


def _groups(root: Path, label: str, package: str, seen: set[str]) -> dict[str, list[Row]]:
    """Return the distinct docstrings of a package by group: by module, or by class if there are few
    modules.
    """
    folder = root / package
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [root / f"{package}.py"]
    files = [
        file
        for file in files
        if file.is_file() and not {"test", "tests"} & set(file.parts[len(root.parts) :])
    ]
    groups: dict[str, list[Row]] = {}
    for file in files:
        module = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for owner, text in _docstrings(file):
            masked = _NAMES.sub(MASK, text)
            if masked in seen:
                continue
            seen.add(masked)
            group = module if len(files) >= FEW_MODULES else f"{module}.{owner}"
            groups.setdefault(group, []).append({"text": masked, "label": label, "module": module})
    return groups


def _docstrings(file: Path) -> Iterator[tuple[str, str]]:
    """Yield (top-level class or function, cleaned docstring) for every docstring in a file."""
    tree = ast.parse(file.read_text("utf-8"))
    for top in (tree, *tree.body):
        for node in ast.walk(top) if top is not tree else (tree,):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text and len(text) >= SHORTEST:
                    yield getattr(top, "name", ""), text


def _divide(groups: dict[str, list[Row]], order: random.Random) -> dict[str, list[Row]]:
    """Assign whole groups in random order to test and dev until their shares are full; groups that
    do not fit go to train.
    """
    total = sum(len(rows) for rows in groups.values())
    splits: dict[str, list[Row]] = {"train": [], "dev": [], "test": []}
    names = sorted(groups)
    order.shuffle(names)
    for name in names:
        fits = (
            split
            for split, share in HELD_OUT.items()
            if len(splits[split]) + len(groups[name]) <= share * total
        )
        splits[next(fits, "train")] += groups[name]
    return splits


def _without_copies(train: list[Row], rows: list[Row]) -> list[Row]:
    found = find([row["text"] for row in train], [row["text"] for row in rows])
    copies = {pair[0] for pair in (*found.exact, *found.near)}
    return [row for index, row in enumerate(rows) if index not in copies]
