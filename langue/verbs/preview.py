"""What arrives: what training would take.
What leaves: the facts to see before paying, as data and as a page of terminal text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table as Grid
from rich.text import Text

from langue.progress import span
from langue.runs.arguments import FINETUNE, resolve_call
from langue.runs.prepare import Finetuning
from langue.settings.recipe import read_recipe

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
) -> Finetuning:
    """What `finetune` would train on, without training: `.facts` holds the numbers. Takes
    `finetune`'s arguments."""
    layer = read_recipe(Path(recipe)) if recipe else {}
    given = {"task": task, "model": model, "data": data, "columns": columns}
    words = {key.replace("__", "."): value for key, value in settings.items()}
    call = resolve_call(FINETUNE, layer, given, words)
    Finetuning.check(call)
    return Finetuning.make(call)


def show(prepared: Finetuning, console: Console) -> None:
    """Print it: examples with their tokens, the splits, what is cut, duplicates, batches, steps and
    time."""
    facts = prepared.facts
    panels = [
        _example(prepared, row) for row in range(min(EXAMPLES, len(prepared.encoded["train"])))
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
    for remark in prepared.task.remarks():
        console.print(Text(f"· {remark}"))
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
        f"· {facts['steps']:,} steps, {facts['steps_per_epoch']:,} per epoch, mean"
        f" {facts['mean_tokens']:.0f} tokens, {facts['precision']}: about"
        f" {span(facts['seconds_estimated'])} on this machine"
    )


def _example(prepared: Finetuning, row: int) -> Text:
    """One training example: its tokens as the model gets them, then its target, which carries the
    loss."""
    encoded = prepared.encoded["train"]
    examples = encoded.examples
    tokenizer = prepared.checkpoint.tokenizer
    first, *more = encoded.sequences_of(row).tolist()
    part = slice(examples.starts[first], examples.starts[first + 1])
    ids = examples.tokens[part].tolist()
    learnt = [False] * len(ids)  # tokens that carry loss
    if examples.labels is not None:
        learnt = (examples.labels[part] >= 0).tolist()
    special = {
        index
        for index, token in tokenizer.backend.get_added_tokens_decoder().items()
        if token.special
    }
    line = Text(overflow="fold")
    shown = list(range(len(ids)))
    if len(ids) > SHOWN_TOKENS:
        shown = shown[: SHOWN_TOKENS // 2] + [-1] + shown[-SHOWN_TOKENS // 2 :]
    for place in shown:
        if place < 0:
            line.append(f" … {len(ids) - SHOWN_TOKENS} more … ", style="dim italic")
            continue
        style = "dim" if ids[place] in special else "green" if learnt[place] else ""
        line.append(tokenizer.token(ids[place]) + " ", style=style)
    if more:
        line.append(f"+ {len(more)} more sequences ", style="dim italic")
    line.append(f"→ {prepared.task.show_target(encoded.golds[row])}", style="bold green")
    if cut := int(examples.cut[[first, *more]].sum()):
        line.append(f"  ({cut} tokens cut)", style="yellow")
    return line


def _splits(facts: Mapping[str, Any]) -> Grid:
    grid = Grid(box=None, header_style="bold", padding=(0, 2))
    for name in ("split", "examples", "tokens", "longest", "cut", "balance"):
        grid.add_column(name, justify="left" if name in ("split", "balance") else "right")
    for name, split in facts["splits"].items():
        balance = list(split["balance"].items())
        if all(isinstance(number, int) for _, number in balance):  # counts, the largest first
            balance.sort(key=lambda pair: -pair[1])
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
