"""What errors advise exists: each option, command, setting and extra that a remedy names.

The remedies are found in the code, all of them, so that a new one is looked at without being
listed. Whether one helps is tested by obeying it (test_remedies.py, test_remedies_of_commands.py,
test_causes.py)."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import typer

import langue
from langue.cli import app
from langue.settings.sections import known
from langue.tasks import OPTIONS
from langue.text.read.parse import KINDS

ROOT = Path(langue.__file__).parent
# options of programs of others that an advice names
OF_OTHERS = {"--help", "--upgrade", "--force-reinstall", "--no-deps"}


def _texts(node: ast.AST) -> list[str]:
    """The strings of an expression, an f-string as one with its expressions as `{}`."""
    if isinstance(node, ast.JoinedStr):
        parts = [_texts(each) if isinstance(each, ast.Constant) else ["{}"] for each in node.values]
        return ["".join(text for part in parts for text in part)]
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    return [text for child in ast.iter_child_nodes(node) for text in _texts(child)]


def _advice() -> dict[str, list[str]]:
    """{file:line: texts} of each `do=` of a call, with what the names in it were set to."""
    found = {}
    for file in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        set_to: dict[str, list[str]] = {}
        for node in ast.walk(tree):
            targets = node.targets if isinstance(node, ast.Assign) else []
            for target in targets:
                if isinstance(target, ast.Name):
                    set_to.setdefault(target.id, []).extend(_texts(node.value))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            for keyword in node.keywords:
                if keyword.arg == "do":
                    names = [
                        each.id for each in ast.walk(keyword.value) if isinstance(each, ast.Name)
                    ]
                    more = [text for name in names for text in set_to.get(name, ())]
                    place = f"{file.relative_to(ROOT)}:{node.lineno}"
                    found.setdefault(place, []).extend(_texts(keyword.value) + more)
    return found


ADVICE = _advice()


def _named(pattern: str) -> dict[str, str]:
    """{what a pattern finds: where it is advised}."""
    return {
        match: place
        for place, texts in ADVICE.items()
        for text in texts
        for match in re.findall(pattern, text)
    }


@pytest.fixture(scope="module")
def commands():
    """{words: options} of each command."""
    found = {}

    def walk(command, words):
        found[words] = {option for each in command.params for option in each.opts}
        for name, each in getattr(command, "commands", {}).items():
            walk(each, (*words, name))

    walk(typer.main.get_command(app), ())
    return found


def test_all_advice_is_found():
    assert len(ADVICE) > 600


def test_options_that_are_advised_exist(commands):
    there = OF_OTHERS.union(*commands.values())
    named = _named(r"(?<![\w-])(--[a-z][a-z-]*)")
    assert len(named) > 20
    assert {option: place for option, place in named.items() if option not in there} == {}


def test_commands_that_are_advised_exist(commands):
    """With their options, as far as these stand behind them."""
    for words, place in _named(r"(?<!of )\b(langue [a-z][^;,`]*)").items():
        rest = words.split()[1:]
        depth = max(n for n in range(3) if tuple(rest[:n]) in commands)
        assert depth, f"{place}: there is no command {words!r}"
        options = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]*)", words))
        lacking = options - commands[tuple(rest[:depth])]
        assert not lacking, f"{place}: {words!r} has no {lacking}"


def test_settings_that_are_advised_exist():
    there = set(known(*OPTIONS.values()))
    named = _named(r"\b((?:model|data|train|task|tokenizer)\.[a-z_]+)\b(?![.(])")
    files = tuple([*KINDS, ".safetensors", ".model"])
    named = {key: place for key, place in named.items() if not key.endswith(files)}
    assert len(named) > 25
    assert {key: at for key, at in named.items() if key not in there} == {}


def test_extras_that_are_advised_exist():
    with (ROOT.parent / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    named = _named(r"langue\[([\w,]+)\]")
    assert len(named) > 3
    assert {name: place for name, place in named.items() if name not in extras} == {}
