"""Starting is instant: nothing heavy is imported before it is needed."""

import json
import subprocess
import sys
import time

import pytest

from benchmarks.walk import modules_imported

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
def test_to_start_takes_an_instant(code: str, limit: float) -> None:
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
        "import langue.evaluation.judge, langue; print(callable(langue.evaluate),"
        " langue.evaluate.__module__)"
    )
    assert python(code) == "True langue.verbs.evaluate"


def test_the_face_has_the_verbs_and_nothing_unknown() -> None:
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
