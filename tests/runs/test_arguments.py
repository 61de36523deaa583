"""A run's command: typed again it makes the same run."""

import shlex

import pytest

from langue.cli.options import parse_columns
from langue.runs.arguments import FINETUNE, PRETRAIN, Call, Command, command_line, resolve_call
from langue.settings.sections import parse_words


def typed(command: Command, line: str) -> Call:
    """What the command line makes of these words."""
    program, verb, *words = shlex.split(line)
    assert (program, verb) == ("langue", command.verb)
    given: dict[str, list[str]] = {}
    while words and words[0].startswith("--"):
        name, value, *words = words
        given.setdefault(name.removeprefix("--"), []).append(value)
    del given["out"]
    columns = parse_columns(given.pop("columns", None))
    alone = {name: values[0] if len(values) == 1 else values for name, values in given.items()}
    return resolve_call(command, {}, {**alone, "columns": columns}, parse_words(words))


@pytest.mark.parametrize(
    ("command", "given", "settings"),
    [
        (FINETUNE, {"model": "m", "data": "d"}, {}),
        (
            FINETUNE,
            {"model": "a model", "data": "it's.csv", "columns": {"text": "a b", "label": "l"}},
            {"train.lr": 3e-5, "task.multi_label": True, "train.best": "f1_macro"},
        ),
        (
            FINETUNE,
            {"model": "m", "data": "d"},
            {"model.adapter": "lora", "model.lora_targets": "q,v"},
        ),
        (
            PRETRAIN,
            {"data": ["a.txt", "b.txt@0.5"], "tokenizer": "t"},
            {"train.max_steps": 5, "model.size": "1M", "train.best": "none"},
        ),
        (PRETRAIN, {"data": "a.txt", "objective": "masked"}, {"tokenizer.special": "[A],[B]"}),
    ],
)
def test_the_command_of_a_run(command, given, settings):
    call = resolve_call(command, {}, given, settings)
    again = typed(command, command_line(command, call, "my runs/a"))
    assert again.settings == call.settings and again.kind is call.kind
    assert {name: value for name, value in again.arguments.items() if value is not None} == {
        name: value for name, value in call.arguments.items() if value is not None
    }


def test_rows_of_python_have_no_command():
    call = resolve_call(FINETUNE, {}, {"model": "m", "data": [{"text": "a", "label": "b"}]}, {})
    assert command_line(FINETUNE, call, "out") == ""
