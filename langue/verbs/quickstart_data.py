"""What arrives: the source files of the running Python's standard library, read and parsed, never
run. What leaves: the quickstart's data set: docstrings labelled by the package they come from,
split into train/dev/test.

Three things keep the scores honest. The labels' own names are masked in every text, so that no
answer stands in its question. Docstrings of one module (of one class, in packages of few modules)
stay in one split, because neighbours are often near-copies. And what still stands in train, exactly
or nearly, is taken out of dev and test.
"""

import ast
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from langue.errors import DataError
from langue.text.quality.duplicates import find

# Well-filled packages of every supported Python, Debian's divided one included. decimal's own
# module is C.
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
SHORTEST = 20  # characters of a docstring that says something
FEWEST = 40  # docstrings below which a label cannot be learned: the library is not all there
FEW_MODULES = 8  # packages of fewer are divided by class
HELD_OUT = {"dev": 0.1, "test": 0.2}  # shares, whole groups at a time; the rest is train

Row = dict[str, str]
_NAMES = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(PACKAGES)})(?![A-Za-z])")


def build(seed: int = 0, library: Path | None = None) -> dict[str, list[Row]]:
    """`{"train": [{"text", "label", "module"}, ...], "dev": ..., "test": ...}`, by (seed, Python
    version).
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
    """The package's distinct docstrings by what must not be divided: a module, or a class where
    modules are few.
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
    """(top-level class or function, cleaned docstring) of everything in a file that has one."""
    tree = ast.parse(file.read_text("utf-8"))
    for top in (tree, *tree.body):
        for node in ast.walk(top) if top is not tree else (tree,):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text and len(text) >= SHORTEST:
                    yield getattr(top, "name", ""), text


def _divide(groups: dict[str, list[Row]], order: random.Random) -> dict[str, list[Row]]:
    """Whole groups, in random order, to test and dev until their shares are full; a group too big
    for that trains.
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
