"""The house: imports point down only, siblings do not know each other, nothing goes in circles,
rooms stay small."""

import ast
import textwrap
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "langue"

# From the ground up. Rooms on one floor do not import each other; errors stand below the rest of
# floor 0.
FLOORS = (
    {"errors"},
    {"child", "files", "registry", "runtime", "settings", "wording"},
    {"hardware", "progress", "formats"},
    {"text", "model"},
    {"data", "hub", "statistics"},
    {"generation"},
    {"tasks"},
    {"train"},
    {"evaluation", "planning", "explain", "compress", "knowledge"},
    {"runs"},
    {"verbs", "estimators"},
    {"serve"},
    {"cli"},
    {"__init__", "__main__"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
LONGEST_FILE = 800
LONGEST_FUNCTION = 90


@cache
def modules(root: Path) -> dict[str, ast.Module]:
    """`{"text.source": tree, ...}`; a package's own file is "text.__init__"."""
    return {
        ".".join(file.relative_to(root).with_suffix("").parts): ast.parse(
            file.read_text("utf-8"), str(file)
        )
        for file in sorted(root.rglob("*.py"))
    }


def imports(name: str, trees: dict[str, ast.Module]) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of ours, those inside functions too."""
    for node in ast.walk(trees[name]):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                package = ["langue", *name.split(".")][: -node.level]
                base = ".".join([*package, *(node.module or "").split(".")]).rstrip(".")
            else:
                base = node.module or ""
            targets = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            if target == "langue" or target.startswith("langue."):
                found = resolve(target.removeprefix("langue").lstrip("."), trees)
                if found is not None:
                    yield node.lineno, found


def resolve(target: str, trees: dict[str, ast.Module]) -> str | None:
    """The module that `target`, a module or a name in one, is in. The version is the one name that
    all may take."""
    if target == "__version__":
        return None
    parts = target.split(".") if target else []
    for end in range(len(parts), -1, -1):
        stem = ".".join(parts[:end])
        for candidate in (stem, f"{stem}.__init__".lstrip(".")):
            if candidate in trees:
                return candidate
    raise AssertionError(f"langue.{target} is imported but is not there")


def complaints(trees: dict[str, ast.Module]) -> list[str]:
    found = []
    graph: dict[str, set[str]] = {name: set() for name in trees}
    for name in trees:
        room = name.split(".")[0]
        if room not in FLOOR:
            found.append(f"{name}: {room} has no floor; name it in FLOORS")
            continue
        for line, target in imports(name, trees):
            other = target.split(".")[0]
            if target != name:
                graph[name].add(target)
            if other != room and FLOOR.get(other, len(FLOORS)) >= FLOOR[room]:
                way = "up to" if FLOOR.get(other, len(FLOORS)) > FLOOR[room] else "across to"
                found.append(f"{name}, line {line}: imports {way} {target}")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append("a circle of imports: " + " -> ".join(error.args[1]))
    return found


def test_imports_point_down() -> None:
    assert complaints(modules(ROOT)) == []


def test_files_and_functions_are_short() -> None:
    long = []
    for name, tree in modules(ROOT).items():
        file = ROOT.joinpath(*name.split(".")).with_suffix(".py")
        text = file.read_text("utf-8")
        if text.count("\n") > LONGEST_FILE:
            long.append(f"{file.name}: {text.count(chr(10))} lines")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{file.name}: {node.name} has {lines} lines")
    assert long == []


def test_every_file_says_what_it_is() -> None:
    silent = [
        name for name, tree in modules(ROOT).items() if tree.body and not ast.get_docstring(tree)
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {
                "model/block.py": "def f():\n    from langue.tasks import apply",
                "tasks/apply.py": "",
            },
            "imports up to",
        ),
        (
            {"text/read/source.py": "import langue.model.block", "model/block.py": ""},
            "imports across to",
        ),
        (
            {"data/batch.py": "from ..hub.families import bert", "hub/families/bert.py": ""},
            "imports across to",
        ),
        (
            {"text/a.py": "from langue.text import b", "text/b.py": "from .a import x"},
            "a circle of imports",
        ),
        ({"attic/a.py": ""}, "has no floor"),
        ({"errors.py": "import langue", "__init__.py": ""}, "imports up to"),
    ],
)
def test_the_check_sees_what_is_wrong(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    assert any(said in complaint for complaint in complaints(modules(tmp_path)))


def test_no_task_is_named_outside_its_file() -> None:
    """By a string that is its name, or by an import of its file. The list of tasks names their
    files; hub/ has heads of its own, text/read keys of other programs' files, and langue verbs,
    some of which are called as a task."""
    from langue.tasks import OBJECTIVES, TASKS

    names = {*TASKS, *OBJECTIVES}
    files = {f"tasks.{name}" for name in names}
    found = []
    trees = modules(ROOT)
    for name, tree in trees.items():
        if name in files or name.startswith(("hub.", "text.read.")):
            continue
        if name in ("tasks.__init__", "__init__"):  # the registry; the list of verbs
            continue
        found += [
            f"{name}, line {node.lineno}: {node.value!r}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and node.value in names
        ]
        found += [
            f"{name}, line {line}: imports {target}"
            for line, target in imports(name, trees)
            if target in files
        ]
    assert found == []
