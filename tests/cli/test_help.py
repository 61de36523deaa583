"""Help and completion, as people see them in a terminal of 80 columns."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from langue.cli import app


def langue(*words: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "langue", *words],
        env=os.environ | {"COLUMNS": "80", "TERM": "dumb"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def commands(group: Any, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        words = (*before, name)
        found += commands(command, words) if hasattr(command, "commands") else [words]
    return found


PROBE = """
import contextlib, io, json, sys
from langue.cli import run
found = {}
for words in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        run([*words, "--help"])
    found[" ".join(words)] = said.getvalue()
print(json.dumps(found))
"""


def test_help_of_every_command_is_laid_out_as_it_is_written() -> None:
    named = {" ".join(words): words for words in commands(typer.main.get_command(app))}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(list(named.values()))],
        env=os.environ | {"COLUMNS": "80", "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    shown = json.loads(done.stdout)
    for name, words in named.items():
        command: Any = typer.main.get_command(app)
        for word in words:
            command = command.commands[word]
        lines = [line.rstrip() for line in shown[name].splitlines()]
        assert max(map(len, lines)) <= 80, name
        for line in inspect.cleandoc(command.help).splitlines():
            # each at its place: none is broken, and no example loses its indentation
            assert f" {line}".rstrip() in lines, (name, line)


def test_settings_fit_80_columns() -> None:
    lines = [line.rstrip() for line in langue("settings").splitlines()]
    assert max(map(len, lines)) <= 80
    place = next(i for i, line in enumerate(lines) if line.startswith("train.lr = "))
    assert "pretrain: 0.001" in lines[place] and lines[place + 1].startswith(
        "    peak learning rate;"
    )


@pytest.mark.parametrize(
    ("shell", "typed", "expected"),
    [
        ("bash", "langue finet", "finetune"),
        ("zsh", "langue data pre", "preview"),
        ("fish", "langue predict --batch", "--batch-tokens"),
        ("bash", "langue finetune --task cla", "classify"),
        ("bash", "langue finetune train.ep", "train.epochs="),
    ],
)
def test_a_shell_completes(shell: str, typed: str, expected: str, tmp_path: Path) -> None:
    words = typed.split()
    asked = {
        "_LANGUE_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": typed,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
    }
    assert expected in langue(**asked)
    assert "_LANGUE_COMPLETE" in langue(_LANGUE_COMPLETE=f"source_{shell}")
