"""Resolution of training commands: takes the arguments of a command, and recipes; returns a `Call`
with the task, the data and model, and settings of which each has an effect.
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

MANY = 1e6  # epochs: as many as `train.max_steps` requires


@dataclass(frozen=True)
class Command:
    """What distinguishes fine-tuning from pretraining before any data is read."""

    verb: str  # name of the command
    names: str  # name of the argument with the task
    registry: Registry[Any]  # the tasks that it trains
    default: str
    needs: Mapping[str, str]  # required arguments, and what to do if one is missing
    # types of arguments, in code and in words, since recipes and Python allow anything
    types: Mapping[str, tuple[Any, str]]
    usual: Mapping[str, Any]  # its own defaults of settings
    others: Mapping[str, str]  # settings without an effect in this command, and what to use instead
    of_others: str  # the command that these settings belong to


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
    """A training command with its recipes and arguments resolved."""

    kind: "type[Objective]"
    arguments: Mapping[str, Any]  # task or objective, model, data, columns, tokenizer
    settings: Settings
    usual: Settings  # the defaults

    def reads(self) -> Iterator[Any]:
        """Yield the inputs of the run that have names."""
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
    """Return the arguments of a command; raise SettingsError for errors that do not depend on the
    task, and so can be found before the task's file, and PyTorch with it, is imported.
    """
    arguments, rest = _arguments(command, recipe, given)
    check_early({**rest, **words}, command.others)
    return arguments


def _arguments(
    command: Command, recipe: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of a recipe, overridden by those given directly; and the recipe's
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
    """Resolve the flat keys of a recipe, overridden by arguments and settings that are given
    directly.
    """
    arguments, rest = _arguments(command, recipe, given)
    kind: type[Objective] = command.registry[arguments[command.names]]
    usual: tuple[Mapping[str, Any], ...] = (command.usual, kind.tokenizer_defaults)
    others = command.others
    if arguments["model"] is None:  # a new model is created
        others = {key: here for key, here in others.items() if key not in OF_NEW_MODELS}
        usual = ({"train.lr": NEW_MODEL_RATE}, *usual)
    settle = partial(resolve, options=kind.Options, others=others, elsewhere=OPTIONS)
    settings = settle(*usual, rest, words)
    if kind.learns_from == "documents":
        # a fixed number of steps, whatever number of epochs that takes
        if settings.train.max_steps:
            settings = settle(*usual, {"train.epochs": MANY}, rest, words)
        elif rest.get("train.epochs") == MANY:  # written by a recipe with a fixed number of steps
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
    """Raise SettingsError if an argument is missing, unknown, or of the wrong type."""
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
        # otherwise a new model is created
        if key != "model" or command.registry[name].preset is None:
            raise SettingsError(f"no {key} was named", do=do)


def command_line(command: Command, call: Call, out: str | Path) -> str:
    """Return the shell command that repeats the run; "" if its data are rows that were given in
    Python.
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
    """Return a setting's value as it is written on the command line."""
    if isinstance(value, (list, tuple)):
        return ",".join(str(each) for each in value)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)


def without_settled(command: Command, layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a layer without those that leave a decision to a run which has already
    made it.
    """
    # the values of settings that leave a decision to the run; its recipe then contains what it has
    # decided
    settled: dict[str, tuple[Any, ...]] = {"train.best": (None, "none", "None")}
    for kind in command.registry.values():
        for name, values in kind.settled_options.items():
            settled[f"task.{name}"] = values
    return {key: value for key, value in layer.items() if value not in settled.get(key, ())}


def check_rereadable(data: Any) -> None:
    """Raise SettingsError if the data of a recipe are rows that were given in Python, which it does
    not contain.
    """
    if isinstance(data, str) and data == ROWS:
        what = "the run's data were rows given in Python, which its recipe does not hold"
        raise SettingsError(what, do="give them again: data=...")
