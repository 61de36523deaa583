"""What arrives: what training would take.
What leaves: the facts to see before paying, as data and as a page of terminal text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table as Grid
from rich.text import Text

from langue.progress import span
from langue.runs.prepare import Prepared, prepare
from langue.settings.recipe import read_recipe
from langue.verbs.finetune import resolve_call

EXAMPLES = 3
SHOWN_TOKENS = 60


def preview(
    task: str | None = None,
    *,
    model: str | Path | None = None,
    data: Any = None,
    columns: Mapping[str, str] | None = None,
    recipe: str | Path | None = None,
    **settings: Any,
) -> Prepared:
    """What `finetune` would train on, without training: `.facts` holds the numbers. Takes
    `finetune`'s arguments."""
    layers = [read_recipe(Path(recipe))] if recipe else []
    given = {"task": task, "model": model, "data": data, "columns": columns}
    arguments, chosen = resolve_call(
        layers, given, {k.replace("__", "."): v for k, v in settings.items()}
    )
    return prepare(
        arguments["task"],
        model=arguments["model"],
        data=arguments["data"],
        columns=arguments["columns"],
        settings=chosen,
    )


def show(prepared: Prepared, console: Console) -> None:
    """Print it: examples with their tokens, the splits, what is cut, duplicates, batches, steps and
    time."""
    facts = prepared.facts
    panels = [
        _example(prepared, row) for row in range(min(EXAMPLES, len(prepared.examples["train"])))
    ]
    legend = Text(
        "green: what carries the loss · dim: special tokens · plain: what the model reads",
        style="italic",
    )
    console.print(
        Panel(
            Group(*panels, legend),
            title=Text(f"what will be trained: {facts['task']} on {facts['origin']}"),
        )
    )
    console.print(_splits(facts))
    if "positive" in facts:
        label = Text(" ".join(facts["positive"].split()), "bold")
        console.print(
            Text.assemble(
                "· precision, recall and F1 are of the label ",
                label,
                "; task.positive names another",
            )
        )
    for note in facts["notes"]:
        console.print(Text(f"· {note}"))
    for split, found in facts["duplicates"].items():
        if found["exact"] or found["near"]:
            share = (found["exact"] + found["near"]) / found["of"]
            console.print(
                f"[yellow]! {split}: of {found['of']:,} texts {found['exact']:,} stand in train"
                f" exactly and {found['near']:,} nearly ({share:.1%}); what was learnt by heart"
                " will count there as skill[/]"
            )
        else:
            console.print(f"· no {split} text stands in train, exactly or nearly")
    console.print(
        f"· {facts['steps']:,} steps, {facts['steps_per_epoch']:,} a pass, mean"
        f" {facts['mean_tokens']:.0f} tokens, {facts['precision']}: about"
        f" {span(facts['seconds_estimated'])} on this machine"
    )


def _example(prepared: Prepared, row: int) -> Text:
    """One training example: its tokens as the model gets them, then its target, which carries the
    loss."""
    examples = prepared.examples["train"]
    tokenizer = prepared.checkpoint.tokenizer
    ids = examples.tokens[examples.starts[row] : examples.starts[row + 1]].tolist()
    special = {
        index
        for index, token in tokenizer.backend.get_added_tokens_decoder().items()
        if token.special
    }
    line = Text(overflow="fold")
    shown = (
        ids
        if len(ids) <= SHOWN_TOKENS
        else ids[: SHOWN_TOKENS // 2] + [None] + ids[-SHOWN_TOKENS // 2 :]
    )
    for index in shown:
        if index is None:
            line.append(f" … {len(ids) - SHOWN_TOKENS} more … ", style="dim italic")
        else:
            line.append(tokenizer.token(index) + " ", style="dim" if index in special else "")
    assert examples.targets is not None
    line.append(f"→ {_target(prepared, np.asarray(examples.targets[row]))}", style="bold green")
    if examples.cut[row]:
        line.append(f"  ({examples.cut[row]} tokens cut)", style="yellow")
    return line


def _target(prepared: Prepared, target: Any) -> str:
    labels = prepared.task.to_dict().get("labels")
    if labels is None:
        return f"{float(target):g}"
    if target.ndim:
        return " | ".join(label for label, on in zip(labels, target, strict=True) if on) or "(none)"
    return str(labels[int(target)])


def _splits(facts: Mapping[str, Any]) -> Grid:
    grid = Grid(box=None, header_style="bold", padding=(0, 2))
    for name in ("split", "examples", "tokens", "longest", "cut", "balance"):
        grid.add_column(name, justify="left" if name in ("split", "balance") else "right")
    for name, split in facts["splits"].items():
        balance = (
            sorted(split["balance"].items(), key=lambda pair: -pair[1])
            if facts["task"] == "classify"
            else list(split["balance"].items())
        )
        words = ", ".join(f"{label} {count:g}" for label, count in balance[:6])
        words += f" … {len(balance) - 6} more" if len(balance) > 6 else ""
        cut = f"{split['cut_examples']:,} texts" if split["cut_examples"] else "none"
        grid.add_row(
            name,
            f"{split['examples']:,}",
            f"{split['tokens']:,}",
            str(split["longest"]),
            cut,
            Text(words),
        )
    return grid
