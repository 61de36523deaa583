"""`langue settings`: print every setting of recipes and commands."""

from typing import Any

from langue.cli.options import Debug, Json


def settings(as_json: Json = False, debug: Debug = False) -> None:
    """List every setting with its default.

    Write settings after a command, or in a recipe:

        langue finetune --recipe recipe.toml --out runs/again train.lr=3e-5

    The command line takes precedence over the recipe.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from langue.runs.show import print_json
    from langue.verbs.settings import settings as verb

    rows = verb()
    if as_json:
        print_json(rows)
        return
    console = Console(highlight=False)
    for key, row in rows.items():
        others = row.get("others", {})
        if "pretrain" in row:
            others = others | {"pretrain": row["pretrain"]}
        otherwise = "".join(f", {name}: {written(value)}" for name, value in others.items())
        default = f" = {written(row['default'])}"
        console.print(Text.assemble((key, "bold"), (default + otherwise, "cyan")))
        choices = f" ({', '.join(row['choices'])})" if row["choices"] else ""
        console.print(Padding(Text(row["description"] + choices), (0, 0, 0, 4)))


def written(default: Any) -> str:
    """A default as one writes it on the command line."""
    if isinstance(default, bool) or default is None:
        return str(default).lower()
    return ",".join(map(str, default)) if isinstance(default, tuple) else f"{default}"
