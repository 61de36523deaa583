"""What arrives: the command line and the settings as the code declares them. What leaves: the generated pages.

Run by `make docs`; a test fails where the pages are not what the code says.
"""

import inspect
from pathlib import Path
from typing import Any

import typer.main

from langue.cli import app
from langue.cli.settings import listed, written

HERE = Path(__file__).parent


def pages() -> dict[str, str]:
    """The text of each page, by its name."""
    return {"commands.md": _commands(), "settings.md": _settings(), "families.md": _families()}


def _commands() -> str:
    parts = ["# Commands\n\nThe same verbs are functions of `langue` in Python, with the same names and defaults."]
    parts += [_command(f"langue {name}", command) for name, command in _flat(typer.main.get_command(app))]
    return "\n\n".join(parts) + "\n"


def _flat(group: Any, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, command in group.commands.items():
        found += _flat(command, f"{prefix}{name} ") if hasattr(command, "commands") else [(prefix + name, command)]
    return found


def _command(name: str, command: Any) -> str:
    rows = ["| option | what it does |", "|---|---|"]
    for parameter in command.params:
        if parameter.name == "help":
            continue
        option = parameter.param_type_name == "option"
        shown = ", ".join(parameter.opts) if option else parameter.metavar or parameter.name.upper()
        needed = " (needed)" if parameter.required else ""
        rows.append(f"| `{shown}`{needed} | {parameter.help} |")
    text = inspect.cleandoc(command.help).replace("\b\n", "")
    return f"## {name}\n\n{text}\n\n" + "\n".join(rows)


def _settings() -> str:
    rows = [
        f"| `{key}` | `{written(row['default'])}` | {_otherwise(row)} | {row['description']}"
        + (f": `{'` `'.join(row['choices'])}`" if row["choices"] else "")
        + " |"
        for key, row in listed().items()
    ]
    head = "# Settings\n\nWritten `section.key=value` after a command, or in a TOML recipe; the command wins."
    table = "| setting | default | in pretraining | what it does |\n|---|---|---|---|\n" + "\n".join(rows)
    return f"{head}\n\n{table}\n"


def _otherwise(row: dict[str, Any]) -> str:
    return f"`{written(row['pretrain'])}`" if "pretrain" in row else ""


def _families() -> str:
    from langue.hub.families import FAMILIES

    rows = ["| `model_type` | loads in `transformers` as | file | lines |", "|---|---|---|---|"]
    for name, family in FAMILIES.items():
        file = Path(inspect.getfile(family.read))
        lines = len(file.read_text("utf-8").splitlines())
        rows.append(f"| `{name}` | {', '.join(family.architectures.values())} | `hub/{file.name}` | {lines} |")
    head = (
        "# Families\n\nA family is data: how its config reads, and reversible rules between names. It holds no module."
    )
    tested = "Each is held against `transformers` by `tests/contract/test_families.py`: logits, gradients, saving."
    return f"{head}\n{tested}\n\n" + "\n".join(rows) + "\n" + _presets()


def _presets() -> str:
    from langue.hub.presets import PRESETS, USUAL, count, preset

    rows = ["| preset | family | layers | width | heads | parameters |", "|---|---|---|---|---|---|"]
    for name in PRESETS:
        family, config = preset(name, 32_768, 1024)
        sizes = f"{config.n_layers} | {config.dim} | {config.n_heads} | {count(config) / 1e6:,.0f} million"
        rows.append(f"| `{name}` | `{family.name}` | {sizes} |")
    usual = ", ".join(f"`{name}` for {objective}" for objective, name in USUAL.items())
    return (
        f"\n## Presets\n\nWhat `langue pretrain --preset` makes new, with 32,768 tokens and 1,024 positions; {usual} "
        "where none is named. `--size` keeps the proportions of the kind.\n\n" + "\n".join(rows) + "\n"
    )


if __name__ == "__main__":
    for file, content in pages().items():
        (HERE / file).write_text(content, "utf-8")
