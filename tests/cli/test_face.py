"""The command line and Python say the same words with the same defaults, and the docs say what the
code says."""

import importlib.util
import inspect
from pathlib import Path
from typing import Any

import pytest
import typer.main

import langue
from langue.cli import app
from langue.runs.model import Model

DOCS = Path(__file__).parents[2] / "docs"
# what the command line prints or how
ONLY_THERE = {"as_json", "debug", "all_labels", "pair", "help", "settings", "standard_input"}
ONLY_THERE |= {"quiet", "train", "dev", "test"}  # splits named apart are one argument in Python
ONLY_IN_PYTHON = {"show", "settings"}
OTHER_NAME = {"text": "texts", "choice": "choices"}  # --text is one of them

WORDS = {
    "preview": ("data", "preview"),
    "inspect_data": ("data", "inspect"),
    "mine_negatives": ("data", "mine"),
    "tokenize": ("data", "tokenize"),
    "train_tokenizer": ("tokenizer", "train"),
    "fill_mask": ("fill-mask",),
    "zero_shot": ("zero-shot",),
}


def options(name: str) -> dict[str, Any]:
    command: Any = typer.main.get_command(app)
    for word in WORDS.get(name, (name,)):
        command = command.commands[word]
    found = {
        parameter.name: None if parameter.required else parameter.default
        for parameter in command.params
    }
    return {
        OTHER_NAME.get(key, key): value for key, value in found.items() if key not in ONLY_THERE
    }


@pytest.mark.parametrize(
    "name",
    [
        "finetune",
        "evaluate",
        "plan",
        "predict",
        "chat",
        "verify",
        "rank",
        *WORDS,
        "quickstart",
        "rate",
        "tune",
    ],
)
def test_a_verb_is_the_same_in_both(name: str) -> None:
    parameters = inspect.signature(getattr(langue, name)).parameters.values()
    # what "auto" is in Python is an option left out on the command line
    unsaid = (inspect.Parameter.empty, "auto")
    python = {
        p.name: None if p.default in unsaid else p.default
        for p in parameters
        if p.name not in ONLY_IN_PYTHON
    }
    assert options(name) == python


def test_generate_is_the_same_in_both() -> None:
    parameters = inspect.signature(Model.generate).parameters.values()
    python = {p.name: p.default for p in parameters if p.default is not p.empty}
    del python["details"]  # the command line always has them at hand
    assert options("generate").items() >= python.items()


def test_the_docs_are_what_the_code_says() -> None:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for file, content in generate.pages().items():
        assert (DOCS / file).read_text("utf-8") == content, "run: make docs"
