"""Print what is known of text, of a corpus and of a tokenizer."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from langue.runs.show import print_notes


def print_fertility(report: Mapping[str, Any], console: Console) -> None:
    """What a tokenizer makes of text: tokens a word, by language."""
    from langue.evaluation.terminal import print_table
    from langue.tasks.judgement import Table

    console.print(
        f"{report['kind']}: {report['vocab_size']:,} tokens, of which this text uses"
        f" {report['used']:,}"
    )
    languages = report["languages"]
    rows = languages if len(languages) == 1 else {"all": report["all"], **languages}
    rates = ("tokens_per_word", "tokens_per_character", "tokens_per_byte")
    table = Table(
        title="",
        columns=("", "words", "tokens a word", "a character", "a byte", "unknown"),
        rows=[
            (name, row["words"], *(f"{row[key]:.3f}" for key in rates), row["unknown_share"])
            for name, row in rows.items()
        ],
        shares=(5,),
    )
    print_table(console, table)
    print_notes(console, report["notes"])


def print_corpus(result: Mapping[str, Any], console: Console) -> None:
    """The sizes of a tokenized corpus, split by split."""
    from langue.evaluation.terminal import print_table
    from langue.tasks.judgement import Table

    table = Table(
        title="",
        columns=("split", "documents", "tokens", "characters", "bytes a token", "shards"),
        rows=[
            (
                name,
                *(split[key] for key in ("documents", "tokens", "characters")),
                split["bytes"] / max(1, split["tokens"]),
                split["shards"],
            )
            for name, split in result["splits"].items()
        ],
    )
    print_table(console, table)
    if result["duplicates"]:
        what = "left out" if result["duplicates_dropped"] else "kept (--dedup leaves them out)"
        console.print(
            f"· {result['duplicates']:,} documents are exact copies, {what}", highlight=False
        )
    if result["empty"]:
        console.print(f"· {result['empty']:,} empty documents left out", highlight=False)
    print_notes(console, result["notes"])


def print_text(facts: Mapping[str, Any], console: Console) -> None:
    """The facts of `langue data inspect`."""
    from langue.evaluation import text_report
    from langue.evaluation.cells import visible
    from langue.evaluation.terminal import print_sections

    console.print(Text(visible(facts["name"]), "bold"))
    console.print(Text(", ".join(text_report.sizes(facts))))
    print_notes(console, facts["notes"])
    print_sections(console, [*text_report.tables(facts), *text_report.examples(facts)[:2]])
