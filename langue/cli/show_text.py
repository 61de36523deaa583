"""What arrives: reports about text and tokenizers. What leaves: them printed for people."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

MOST = 12  # scripts, or languages, that are shown


def grid(*columns: str, title: str | None = None) -> Table:
    """A plain table whose first column is of words and whose others are of numbers."""
    table = Table(
        box=None, header_style="bold", padding=(0, 2, 0, 0), title=title, title_justify="left"
    )
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index else "left")
    return table


def print_fertility(report: Mapping[str, Any]) -> None:
    console = Console()
    console.print(
        f"{report['kind']}: {report['vocab_size']:,} tokens, of which this text uses"
        f" {report['used']:,}"
    )
    table = grid("", "words", "tokens a word", "a character", "a byte", "unknown")
    languages = report["languages"]
    rows = languages if len(languages) == 1 else {"all": report["all"], **languages}
    for name, row in rows.items():
        rates = (
            f"{row[key]:.3f}"
            for key in ("tokens_per_word", "tokens_per_character", "tokens_per_byte")
        )
        table.add_row(name, f"{row['words']:,}", *rates, f"{row['unknown_share']:.2%}")
    console.print(table)
    print_notes(console, report["notes"])


def print_corpus(result: Mapping[str, Any]) -> None:
    console = Console()
    table = grid("split", "documents", "tokens", "characters", "bytes a token", "shards")
    for name, split in result["splits"].items():
        rate = f"{split['bytes'] / max(1, split['tokens']):.2f}"
        counts = (f"{split[key]:,}" for key in ("documents", "tokens", "characters"))
        table.add_row(name, *counts, rate, f"{split['shards']:,}")
    console.print(table)
    if result["duplicates"]:
        what = "left out" if result["duplicates_dropped"] else "kept (--dedup leaves them out)"
        console.print(
            f"· {result['duplicates']:,} documents are exact copies, {what}", highlight=False
        )
    if result["empty"]:
        console.print(f"· {result['empty']:,} empty documents left out", highlight=False)
    print_notes(console, result["notes"])


def print_notes(console: Console, notes: list[str]) -> None:
    for note in notes:
        console.print(Text(f"· {note}"))


def print_text(facts: Mapping[str, Any]) -> None:
    """The facts of `langue data inspect`."""
    console = Console()
    counts = [
        f"{facts[name]:,} {name}"
        for name in ("documents", "tokens", "characters")
        if facts.get(name) is not None
    ]
    console.print(Text(facts["name"], "bold"))
    console.print(
        f"{', '.join(counts)}; language: {facts['language']} (guessed by script and words)",
        highlight=False,
    )
    for lengths in (facts[name] for name in ("token_lengths", "lengths") if facts.get(name)):
        told = ", ".join(
            f"{name} {lengths[name]:,}"
            for name in ("shortest", "median", "mean", "p90", "p99", "longest")
        )
        console.print(f"\nlengths in {lengths['unit']}: {told}", highlight=False)
        table = grid(lengths["unit"], "documents")
        table.add_column()
        most = max((each["documents"] for each in lengths["histogram"]), default=1)
        for each in lengths["histogram"]:
            bar = "█" * round(30 * each["documents"] / most)
            table.add_row(
                f"{each['from']:,} to {each['to']:,}", f"{each['documents']:,}", Text(bar, "blue")
            )
        console.print(table)
    console.print()
    for title, what, counts in (
        ("script", "characters", facts["scripts"]),
        ("language", "documents", facts["languages"]),
    ):
        table = grid(title, what, "share")
        total = sum(counts.values())
        for name, count in list(counts.items())[:MOST]:
            table.add_row(name, f"{count:,}", f"{count / total:.2%}")
        console.print(table)
    found = facts["duplicates"]
    near = f"{found['near']:,} near copies among the first {found['near_among']:,}"
    console.print(f"\n· {found['exact']:,} documents are exact copies, {near}", highlight=False)
    print_notes(console, facts["notes"])
    for title, examples in (
        ("drawn at random", facts["samples"]),
        ("longest", facts["longest"][:1]),
    ):
        for each in examples[:3]:
            text = each if isinstance(each, str) else each["text"]
            console.print(Text.assemble((f"{title}: ", "bold"), " ".join(text[:200].split())))
