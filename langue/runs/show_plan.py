"""Print what `langue plan` found."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from langue.wording import counted, span


def print_plan(content: Mapping[str, Any], console: Console) -> None:
    """What training would take: the model, time, memory, and the best use of its operations."""
    grid = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in _facts(content).items():
        grid.add_row(Text(name, "bold"), value)
    console.print(grid, highlight=False)
    taken = Table(
        title="\nmemory of a device",
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, 2, 0, 0),
    )
    for name in ("part", "size", ""):
        taken.add_column(name, justify="right" if name == "size" else "left", overflow="fold")
    for row in _memory(content["memory"], content["layout"]["activation_checkpointing"]):
        taken.add_row(*row)
    console.print(taken, highlight=False)
    flops = content["optimal"]["flops"]
    best = Table(
        title=f"\nthe best use of {flops:.2g} operations", title_justify="left", title_style="bold",
        box=None,
        padding=(0, 2, 0, 0),
    )  # fmt: skip
    for name in ("parameters", "tokens", "a parameter", "loss", "says"):
        best.add_column(name, justify="left" if name == "says" else "right", overflow="fold")
    training = content["training"]
    model = content["model"]
    best.add_row(
        number(model["parameters"]), number(training["tokens"]),
        f"{training['tokens_per_parameter']:.3g}",
        _loss(training["loss_expected"]), "this plan", style="bold",
    )  # fmt: skip
    for law in content["optimal"]["laws"]:
        ratio = f"{law['tokens_per_parameter']:.3g}"
        loss = _loss(law["loss"])
        best.add_row(number(law["parameters"]), number(law["tokens"]), ratio, loss, law["law"])
    console.print(best, highlight=False)
    console.print(
        "The loss is what the last law expects of its own text: it compares plans.\n", style="dim"
    )
    for line in content["assumed"]:
        console.print(Text(f"· {line}", "dim"))


def _loss(loss: float | None) -> str:
    return "not known" if loss is None else f"{loss:.3f}"


def _facts(content: Mapping[str, Any]) -> dict[str, str]:
    model = content["model"]
    training = content["training"]
    where = content["hardware"]
    layout = content["layout"]
    cost = content["cost"]
    measured = content["measured"]
    precision = "bf16" if where["bf16"] else "fp32"
    facts = {
        "model": (
            f"{model['preset']}: {number(model['parameters'])} parameters, {model['layers']} layers"
            f" of {model['width']:,}, {model['heads']} heads, vocabulary {model['vocabulary']:,}"
        ),
        "training": (
            f"{number(training['tokens'])} tokens ({training['tokens_per_parameter']:.3g} a"
            f" parameter), {counted(training['steps'], 'step')} of {training['batch_tokens']:,},"
            f" sequences of {model['length']:,}"
        ),
        "operations": f"{training['flops']:.3g} (6ND says {training['flops_6nd']:.3g})",
        "hardware": (
            f"{where['devices']:,} x {where['name']}, {number(where['peak'], 'FLOP/s')} in"
            f" {precision}; {where['source']}"
        ),
        "layout": (
            f"{layout['name']}, {counted(layout['sequences'], 'sequence')} at once"
            + (", activation checkpointing" if layout["activation_checkpointing"] else "")
        ),
        "utilisation": (
            f"{where['mfu']:.0%} of the peak ({where['mfu_stated']:.0%} {where['mfu_from']})"
        ),
        "speed": f"{number(cost['tokens_per_second'])} tokens/s",
        "time": f"{span(cost['seconds'])}, {number(cost['device_hours'])} device hours",
    }
    if cost["kwh"] is not None:
        facts["energy"] = (
            f"{cost['kwh']:.3g} kWh" if cost["kwh"] < 1000 else f"{cost['kwh'] / 1000:,.1f} MWh"
        )
    if measured:
        facts["measured"] = (
            f"{measured['tokens_per_second']:,.0f} tokens/s of {number(measured['parameters'])}"
            f" parameters here in {measured['precision']}: {measured['mfu']:.0%} of"
            f" {number(measured['peak'], 'FLOP/s')}"
        )
    return facts


def _memory(memory: dict[str, float], activation_checkpointing: bool) -> list[tuple[str, str, str]]:
    other = "activations_kept" if activation_checkpointing else "activations_recomputed"
    said = (
        "without activation checkpointing"
        if activation_checkpointing
        else "with train.activation_checkpointing=true"
    )
    notes = {
        "moments": "AdamW's two",
        "copies": "of the weights, in bf16",
        "gathered": "blocks that are whole while in use",
        "activations": f"{size_of(memory[other])} {said}",
        "logits": f"a chunk at a time; whole: {size_of(memory['logits_whole'])}",
    }
    names = ("weights", "gradients", "moments", "copies", "gathered", "activations", "logits")
    rows = [(name, size_of(memory[name]), notes.get(name, "")) for name in names if memory[name]]
    return [*rows, ("in all", size_of(memory["total"]), f"of {size_of(memory['device'])}")]


def number(value: float, unit: str = "") -> str:
    """1,234 as 1.23K; with a unit in its own words, 9.9e14 FLOP/s as 989 TFLOP/s."""
    letters = (
        ("P", 1e15),
        ("T", 1e12),
        ("G" if unit else "B", 1e9),
        ("M", 1e6),
        ("k" if unit else "K", 1e3),
    )
    for letter, size in letters:
        if value >= 0.9995 * size and (unit or letter != "P"):
            return (
                f"{value / size:.3g} {letter}{unit}" if unit else f"{_three(value / size)}{letter}"
            )
    return f"{value:.3g} {unit}".rstrip()


def _three(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def size_of(bytes_: float) -> str:
    return f"{bytes_ / 1e9:,.2f} GB" if bytes_ >= 1e7 else f"{bytes_ / 1e6:,.2f} MB"
