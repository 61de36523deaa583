"""Starting is instant: nothing heavy is imported before it is needed."""

import inspect
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer.main

import langue
from benchmarks.walk import modules_imported
from langue.cli import app

HEAVY = (
    "torch",
    "datasets",
    "sklearn",
    "scipy",
    "matplotlib",
    "transformers",
    "pandas",
    "numpy",
    "tokenizers",
)
PROBE = f"import json, sys; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
VERBS = (
    ["data", "inspect"],
    ["plan"],
    ["data", "tokenize"],
    ["tokenizer", "train"],
    ["finetune"],
    ["evaluate"],
    ["predict"],
    ["quickstart"],
    ["settings"],
    ["data", "preview"],
    ["inspect"],
    ["tune"],
    ["rate"],
    ["chat"],
)


def python(code: str) -> str:
    """The last line that a fresh Python prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("code", "limit"),
    [("import langue; dir(langue); ", 0.3), ("from langue.cli import run; run(['--help']); ", 0.5)],
)
def test_starting_is_fast(code: str, limit: float) -> None:
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        assert json.loads(python(code + PROBE)) == []
        best = min(best, time.perf_counter() - began)
    # the limit is for a machine that does nothing else; a busy one is no defect
    assert best < 4 * limit


def test_the_help_of_a_verb_imports_nothing_heavy() -> None:
    line = python(
        f"from langue.cli import run\nfor verb in {VERBS!r}: run([*verb, '--help'])\n" + PROBE
    )
    assert json.loads(line) == []


def test_a_verb_keeps_its_name_beside_a_subpackage_of_that_name() -> None:
    code = (
        "import langue.settings.sections, langue; print(callable(langue.settings),"
        " langue.settings.__module__)"
    )
    assert python(code) == "True langue.verbs.settings"


def test_the_package_has_the_verbs_and_nothing_else() -> None:
    code = (
        "import langue; print(all(getattr(langue, n) for n in langue.__all__), hasattr(langue,"
        " 'finetun'))"
    )
    assert python(code) == "True False"


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "langue", "--version"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("langue ")


def test_loading_a_model_needs_no_reader_of_tables() -> None:
    """A tenth of a second of every `langue predict --text`."""
    code = (
        "import sys, langue.runs.model; print([n for n in ('pyarrow', 'datasets', 'sklearn') if n"
        " in sys.modules])"
    )
    assert python(code) == "[]"


def test_a_verb_imports_few_of_our_modules() -> None:
    """Families, foreign formats, evaluation and generation are imported when they are used."""
    assert modules_imported("verbs.finetune") < 80


def test_a_type_checker_reports_an_unknown_verb(tmp_path: Path) -> None:
    """mypy reads `langue/__init__.py` alone: `make lint` checks what it imports."""
    (tmp_path / "langue").mkdir()
    shutil.copy(langue.__file__, tmp_path / "langue")
    (tmp_path / "notebook.py").write_text(
        "import langue\nprint(langue.finetune)\nlangue.finetun()\n"
    )
    options = ("--follow-imports", "skip", "--cache-dir", os.devnull)
    command = [sys.executable, "-m", "mypy", *options, "notebook.py", "langue/__init__.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    lines = [line for line in done.stdout.splitlines() if "error" in line]
    told = [line for line in lines if line.startswith("notebook.py")]
    assert len(told) == 1 and 'no attribute "finetun"' in told[0], done.stdout


def test_every_command_is_a_function() -> None:
    others = {"data inspect": "inspect_data", "data mine": "mine_negatives"}
    others |= {"tokenizer train": "train_tokenizer"}
    for words in _commands(typer.main.get_command(app)):
        name = others.get(words, words.split()[-1].replace("-", "_"))
        assert name in langue.__all__ and inspect.isfunction(getattr(langue, name)), words


def _commands(group: Any, before: str = "") -> list[str]:
    found = []
    for name, command in group.commands.items():
        inside = hasattr(command, "commands")
        found += _commands(command, f"{name} ") if inside else [f"{before}{name}"]
    return found
