"""What arrives: a TOML recipe. What leaves: its flat keys (`train.lr`), and a resolved
recipe as TOML again.

A recipe holds settings, and beside them what a command's arguments are: task, model, data, columns.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from langue.errors import SettingsError
from langue.settings.aliases import RENAMED

ROWS = "(rows given in Python)"

# What a recipe holds beside settings, under the section it belongs to: `[model] name = "..."`.
ARGUMENTS = {
    "task": "task.name",
    "objective": "task.objective",
    "model": "model.name",
    "data": "data.name",
    "tokenizer": "tokenizer.name",
}
# Data whose splits are named one by one: `[data] train = "a.csv"`.
SPLITS_OF_DATA = {split: f"data.{split}" for split in ("train", "dev", "test")}


def read_recipe(path: Path) -> dict[str, Any]:
    """A TOML recipe as flat keys; sections may be tables (`[train]`) or dotted keys."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError("no such recipe", where=str(path)) from None
    except OSError as error:
        raise SettingsError(
            f"the recipe cannot be read: {error.strerror}", where=str(path)
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"not TOML: {error}", where=str(path)) from None
    return flat_keys(tree)


def flat_keys(tree: Mapping[str, Any]) -> dict[str, Any]:
    """`section.key` -> value of a tree of TOML."""
    flat: dict[str, Any] = {}
    for section, values in tree.items():
        if isinstance(values, dict):
            for key, value in values.items():
                name = f"{section}.{key}"
                flat[RENAMED.get(name, name)] = value
        else:
            flat[section] = values
    return flat


def split_recipe(layer: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], dict[str, Any]]:
    """A recipe's flat keys as (task, model and data), column names, and settings."""
    named = {ours: layer[key] for ours, key in ARGUMENTS.items() if key in layer}
    splits = {split: layer[key] for split, key in SPLITS_OF_DATA.items() if key in layer}
    if splits:
        if "data" in named:
            raise SettingsError(
                "data.name and its splits are named together",
                do="name data, or train, dev and test",
            )
        named["data"] = splits
    columns = {
        key.removeprefix("columns."): value
        for key, value in layer.items()
        if key.startswith("columns.")
    }
    taken = {*ARGUMENTS.values(), *SPLITS_OF_DATA.values(), *(f"columns.{key}" for key in columns)}
    return named, columns, {key: value for key, value in layer.items() if key not in taken}


def write_recipe(arguments: Mapping[str, Any], settings: BaseModel) -> str:
    """The resolved recipe as TOML: running it again is one command."""
    tree = settings.model_dump()
    for name, key in ARGUMENTS.items():
        value = arguments.get(name)
        if value is None:
            continue
        section, word = key.split(".")
        shown = display_name(value)
        given: Any = shown if name in ("task", "objective") else located(shown)
        if _are_names(value):
            given = [located(str(each)) for each in value]
        named = {word: given}
        if isinstance(value, Mapping) and _are_names(list(value.values())):
            named = {split: located(str(each)) for split, each in value.items()}
        tree[section] = {**named, **tree.get(section, {})}
    return to_toml(tree | ({"columns": dict(arguments["columns"])} if arguments["columns"] else {}))


def located(name: str) -> str:
    """The name of a file or folder that is there as a whole path, so that a recipe means the same
    wherever it is read; of others, as of the Hub's, the name.
    """
    path, at, weight = name.rpartition("@")
    try:
        if Path(name).expanduser().exists():
            return os.path.abspath(Path(name).expanduser())
        if at and Path(path).expanduser().exists():
            return os.path.abspath(Path(path).expanduser()) + at + weight
    except (OSError, RuntimeError, ValueError):  # a name that is no path, or may not be looked at
        pass
    return name


def _are_names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(each, (str, Path)) for each in value)


def display_name(data: Any) -> str:
    """What data is called in a recipe, and in what is said of it."""
    if isinstance(data, Mapping) and data and _are_names(list(data.values())):
        return ", ".join(f"{split} {name}" for split, name in data.items())
    return str(data) if isinstance(data, (str, Path)) else ROWS


def to_toml(tree: Mapping[str, Any]) -> str:
    """TOML text of top-level scalars and one level of tables. None has no TOML form and is left
    out.
    """

    def literal(value: Any) -> str:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(literal(v) for v in value) + "]"
        if isinstance(value, str):
            # as Python reads names of files that are not UTF-8
            if any("\ud800" <= c <= "\udfff" for c in value):
                raise SettingsError(
                    f"{value!r} is not UTF-8, as a recipe is", do="rename the file or folder"
                )
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            return (
                '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
            )
        return repr(value)

    scalars = [
        f"{k} = {literal(v)}"
        for k, v in tree.items()
        if v is not None and not isinstance(v, Mapping)
    ]
    tables = [(k, v) for k, v in tree.items() if isinstance(v, Mapping)]
    blocks = ["\n".join(scalars)] if scalars else []
    for name, table in tables:
        lines = [f"{k} = {literal(v)}" for k, v in table.items() if v is not None]
        blocks.append("\n".join([f"[{name}]", *lines]))
    return "\n\n".join(blocks) + "\n"
