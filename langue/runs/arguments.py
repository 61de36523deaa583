"""What arrives: the words of a training command, and recipes.
What leaves: a `Call`: the task, what it is trained on and from, and settings that all do something.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langue.errors import SettingsError
from langue.registry import Registry
from langue.settings.recipe import ROWS, flat_keys, names_of, split_recipe
from langue.settings.sections import (
    ADAPTER_RATES,
    FINETUNING,
    NEW_MODEL_RATE,
    OF_ADAPTERS,
    OF_NEW_MODELS,
    ONLY_PRETRAINING,
    PRETRAINING,
    Settings,
    check_early,
    refuse_others,
    resolve,
)
from langue.tasks import DEFAULT_OBJECTIVE, DEFAULT_TASK, OBJECTIVES, OPTIONS, TASKS

if TYPE_CHECKING:
    from langue.tasks.objective import Objective

MANY = 1e6  # epochs: as many as `train.max_steps` asks for


@dataclass(frozen=True)
class Command:
    """What tells fine-tuning and pretraining apart before any data is read."""

    verb: str  # the command's name
    names: str  # the argument that names the task
    registry: Registry[Any]  # the tasks that it trains
    default: str
    needs: Mapping[str, str]  # what must be named, and what to do where it is not
    # what arguments must be, in code and in words: recipes and Python let them be anything
    types: Mapping[str, tuple[Any, str]]
    usual: Mapping[str, Any]  # settings that it has otherwise than the other one
    others: Mapping[str, str]  # settings that do nothing in it, and what does instead
    of_others: str  # what these are settings of


FINETUNE = Command(
    verb="finetune",
    names="task",
    registry=TASKS,
    default=DEFAULT_TASK,
    needs={
        name: f'give --{name}, or a recipe with [{name}] name = "..."' for name in ("model", "data")
    },
    types={
        "task": (str, f"one name, as {DEFAULT_TASK}"),
        "model": ((str, Path), "one Hub name or folder"),
        "columns": ((Mapping, type(None)), 'ours and theirs, as {"text": "review"}'),
    },
    usual={},
    others=ONLY_PRETRAINING,
    of_others="pretraining",
)
PRETRAIN = Command(
    verb="pretrain",
    names="objective",
    registry=OBJECTIVES,
    default=DEFAULT_OBJECTIVE,
    needs={"data": "give --data: text, or a corpus folder"},
    types={"objective": (str, f"one name, as {DEFAULT_OBJECTIVE}")},
    usual=PRETRAINING,
    others=FINETUNING,
    of_others="fine-tuning",
)


@dataclass(frozen=True)
class Call:
    """A training command, its recipes and words put together."""

    kind: "type[Objective]"
    arguments: Mapping[str, Any]  # task or objective, model, data, columns, tokenizer
    settings: Settings
    usual: Settings  # what they are where nothing is said

    def reads(self) -> Iterator[Any]:
        """What the run is made of, as far as it has names."""
        yield from (self.arguments.get("model"), self.arguments.get("tokenizer"))
        data = self.arguments["data"]
        data = list(data.values()) if isinstance(data, Mapping) else data
        for each in data if isinstance(data, (list, tuple)) else [data]:
            yield each
            if isinstance(each, str) and each.rpartition("@")[0]:  # NAME@WEIGHT
                yield each.rpartition("@")[0]


def check_words(
    command: Command, recipe: Mapping[str, Any], given: Mapping[str, Any], words: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of a command. SettingsError at what is wrong whatever the task is, which can be
    told before the task's file is imported, and PyTorch with it.
    """
    arguments, rest = _arguments(command, recipe, given)
    check_early({**rest, **words}, command.others)
    return arguments


def _arguments(
    command: Command, recipe: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments that a recipe has, and that are given directly and win; and the recipe's
    settings.
    """
    named, columns, rest = split_recipe(recipe)
    arguments: dict[str, Any] = {
        command.names: command.default,
        **dict.fromkeys(("model", "data", "tokenizer")),
        "columns": columns or None,
    }
    arguments |= named
    arguments |= {key: value for key, value in given.items() if value is not None}
    _check_arguments(command, arguments)
    return arguments, rest


def resolve_call(
    command: Command, recipe: Mapping[str, Any], given: Mapping[str, Any], words: Mapping[str, Any]
) -> Call:
    """A recipe's flat keys, and arguments and settings that are given directly and win."""
    arguments, rest = _arguments(command, recipe, given)
    kind: type[Objective] = command.registry[arguments[command.names]]
    usual: tuple[Mapping[str, Any], ...] = (command.usual, kind.tokenizer_defaults)
    others = command.others
    if arguments["model"] is None:  # a new one is made
        others = {key: here for key, here in others.items() if key not in OF_NEW_MODELS}
        usual = ({"train.lr": NEW_MODEL_RATE}, *usual)
    settle = partial(resolve, options=kind.Options, others=others, elsewhere=OPTIONS)
    settings = settle(*usual, rest, words)
    if kind.learns_from == "documents":
        if settings.train.max_steps:  # so many steps, whatever the epochs that they take
            settings = settle(*usual, {"train.epochs": MANY}, rest, words)
        elif rest.get("train.epochs") == MANY:  # as a recipe of so many steps has it
            rest = {key: value for key, value in rest.items() if key != "train.epochs"}
            settings = settle(*usual, rest, words)
    method = settings.model.adapter
    if method is None:
        idle = [f"model.{name}" for name in OF_ADAPTERS]
        refuse_others(settings, settle(*usual), idle, "model.adapter, which is not set")
    else:
        usual = (*usual, {"train.lr": ADAPTER_RATES[method]})
        settings = settle(*usual, rest, words)
    unset = settle(*usual)
    refuse_others(settings, unset, others, command.of_others)
    return Call(kind, arguments, settings, unset)


def _check_arguments(command: Command, arguments: Mapping[str, Any]) -> None:
    """SettingsError where one is missing, of the wrong type or not known."""
    for key, (type_of_key, expected) in command.types.items():
        if arguments[key] is not None and not isinstance(arguments[key], type_of_key):
            raise SettingsError(f"{key} = {arguments[key]!r} cannot be used", do=f"give {expected}")
    name = arguments[command.names]
    if name not in command.registry:
        raise SettingsError(
            f"the {command.names} {name!r} is not known",
            do=f"known: {', '.join(command.registry)}",
        )
    for key, do in command.needs.items():
        if arguments[key] is not None:
            continue
        if key != "model" or command.registry[name].preset is None:  # else a new one is made
            raise SettingsError(f"no {key} was named", do=do)


def command_line(command: Command, call: Call, out: str | Path) -> str:
    """The words that make the same run, as typed in a shell; "" where it learns from rows that
    were given in Python.
    """
    if not names_of(call.arguments["data"]):
        return ""
    words = ["langue", command.verb, f"--{command.names}", str(call.arguments[command.names])]
    for name in ("model", "tokenizer", "data"):
        if call.arguments[name] is not None:
            for each in names_of(call.arguments[name]):
                words += [f"--{name}", each]
    columns = call.arguments["columns"] or {}
    if columns:
        words += ["--columns", ",".join(f"{ours}={theirs}" for ours, theirs in columns.items())]
    words += ["--out", str(out)]
    unset = flat_keys(call.usual.model_dump())
    for key, value in flat_keys(call.settings.model_dump()).items():
        if value not in (unset[key], MANY):
            words.append(f"{key}={_written(value)}")
    return shlex.join(words)


def _written(value: Any) -> str:
    """A setting's value as it is written after a command."""
    if isinstance(value, (list, tuple)):
        return ",".join(str(each) for each in value)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)


def without_settled(command: Command, layer: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a layer but for those left to a run that has settled them already."""
    # settings that leave something to the run, and the values that do: its recipe then says what it
    # has chosen
    settled: dict[str, tuple[Any, ...]] = {"train.best": (None, "none", "None")}
    for kind in command.registry.values():
        for name, values in kind.settled_options.items():
            settled[f"task.{name}"] = values
    return {key: value for key, value in layer.items() if value not in settled.get(key, ())}


def check_rereadable(data: Any) -> None:
    """SettingsError where a recipe names as data what it cannot hold."""
    if isinstance(data, str) and data == ROWS:
        what = "the run's data were rows given in Python, which its recipe does not hold"
        raise SettingsError(what, do="give them again: data=...")
