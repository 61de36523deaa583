"""What arrives: `langue settings`. What leaves: every key that a recipe or a command may set,
printed.
"""

from typing import Any

from langue.cli.options import Debug, Json


def settings(as_json: Json = False, debug: Debug = False) -> None:
    """List every setting with its default.

    They are written after a command, or stand in a recipe:

        langue finetune --recipe recipe.toml --out runs/again train.lr=3e-5

    What the command says wins over what the recipe says.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from langue.runs.show import print_json
    from langue.verbs.settings import settings as verb

    rows = verb()
    if as_json:
        print_json(rows)
        return
    grid = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    grid.add_column("setting", no_wrap=True)
    grid.add_column("default", no_wrap=True)
    grid.add_column("what it does")
    for key, row in rows.items():
        choices = f" ({', '.join(row['choices'])})" if row["choices"] else ""
        others = row.get("others", {}) | (
            {"pretrain": row["pretrain"]} if "pretrain" in row else {}
        )
        otherwise = "".join(f" [{name}: {written(value)}]" for name, value in others.items())
        grid.add_row(
            key, Text(written(row["default"]) + otherwise), Text(row["description"] + choices)
        )
    Console().print(grid)


def written(default: Any) -> str:
    """A default as one writes it on the command line."""
    if isinstance(default, bool) or default is None:
        return str(default).lower()
    return ",".join(map(str, default)) if isinstance(default, tuple) else f"{default}"
