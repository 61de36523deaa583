"""Read a TOML recipe as flat keys (`train.lr`), and write a resolved recipe as TOML.

A recipe contains settings and a command's arguments: task, model, data, columns.
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

# The keys of a recipe that are arguments rather than settings, by argument: `[model] name = "..."`.
ARGUMENTS = {
    "task": "task.name",
    "objective": "task.objective",
    "model": "model.name",
    "data": "data.name",
    "tokenizer": "tokenizer.name",
}
# Keys for data with separate splits: `[data] train = "a.csv"`.
SPLITS_OF_DATA = {split: f"data.{split}" for split in ("train", "dev", "test")}


def read_recipe(path: Path) -> dict[str, Any]:
    """Return a TOML recipe as flat keys; sections may be tables (`[train]`) or dotted keys.

    Raises SettingsError if the file cannot be read.
    """
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
    """Return `section.key` -> value of a TOML tree."""
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
    """Split a recipe's flat keys into (arguments such as task, model and data), column names, and
    settings.
    """
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
    """Return the resolved recipe as TOML, with which one command repeats the run."""
    tree = settings.model_dump()
    for name, key in ARGUMENTS.items():
        value = arguments.get(name)
        if value is None:
            continue
        section, word = key.split(".")
        shown = display_name(value)
        given: Any = shown if name in ("task", "objective") else located(shown)
        if isinstance(value, (list, tuple)) and names_of(value):
            given = [located(each) for each in names_of(value)]
        named = {word: given}
        if isinstance(value, Mapping) and names_of(value):
            named = {split: located(str(each)) for split, each in value.items()}
        tree[section] = {**named, **tree.get(section, {})}
    return to_toml(tree | ({"columns": dict(arguments["columns"])} if arguments["columns"] else {}))


def located(name: str) -> str:
    """Return the absolute path of an existing file or folder, so that a recipe means the same
    everywhere; other names, such as those on the Hub, are returned unchanged.
    """
    path, at, weight = name.rpartition("@")
    try:
        if Path(name).expanduser().exists():
            return os.path.abspath(Path(name).expanduser())
        if at and Path(path).expanduser().exists():
            return os.path.abspath(Path(path).expanduser()) + at + weight
    except (OSError, RuntimeError, ValueError):  # not a valid path, or not accessible
        pass
    return name


def names_of(data: Any) -> list[str]:
    """Return the names by which data was given: one, several, or those of its splits; empty for
    rows given in Python.
    """
    given = data if isinstance(data, (list, tuple)) else [data]
    if isinstance(data, Mapping):
        given = list(data.values())
    if not all(isinstance(each, (str, Path)) for each in given):
        return []
    return [str(each) for each in given]


def display_name(data: Any) -> str:
    """Return the name of data in recipes and messages."""
    if isinstance(data, Mapping) and names_of(data):
        return ", ".join(f"{split} {name}" for split, name in data.items())
    return ", ".join(names_of(data)) or ROWS


def short_name(data: Any) -> str:
    """Return the name of data in titles: files and folders without their path."""
    names = [Path(name).name if Path(name).exists() else name for name in names_of(data)]
    return ", ".join(names) or ROWS


def to_toml(tree: Mapping[str, Any]) -> str:
    """Return the TOML text of top-level scalars and one level of tables; None has no TOML form and
    is left out.
    """

    def literal(value: Any) -> str:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(literal(v) for v in value) + "]"
        if isinstance(value, str):
            # Python's form of file names that are not UTF-8
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
