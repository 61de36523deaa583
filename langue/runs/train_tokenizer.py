"""Training of tokenizers: takes running text; returns a tokenizer trained on it, and a report on
how it tokenizes the text.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.errors import RunError
from langue.files import atomic_folder, exclusive_lock, write_json
from langue.progress import bar
from langue.runs.notebook import Result
from langue.runs.show_text import print_fertility
from langue.settings.sections import OF_READING, OF_TRAINING_TOKENIZERS, resolve_for
from langue.text.read.documents import Kind, Reading, Tally, Texts, open_texts
from langue.text.tokenizers.fertility import fertility
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.training import check, train

MEASURED = 2_000_000  # characters of each source on which fertility is measured


def train_tokenizer(
    sources: Any,
    *,
    out: str | Path,
    columns: Mapping[str, str] | None = None,
    document: Kind = "file",
    force: bool = False,
    **settings: Any,
) -> Result:
    """Train a tokenizer on text, with the `tokenizer.*` settings, and return its fertility report.

    sources: one or more files, folders, Hub data sets or lists of texts. out: the folder that gets
    tokenizer.json, tokenizer_config.json and fertility.json. columns: `{"text": "review"}`.
    Settings are keywords (`tokenizer__kind`) or `**{"tokenizer.kind": "unigram"}`.
    """
    chosen = resolve_for([*OF_TRAINING_TOKENIZERS, *OF_READING], settings)
    check(chosen.tokenizer)
    folder = Path(out)
    if (
        folder.exists()
        and not (folder.is_dir() and not any(folder.iterdir()))
        and not _ours(folder, force)
    ):
        raise RunError(
            "exists already",
            where=str(folder),
            do="name another folder, or replace a tokenizer: --force",
        )
    reading = Reading.of(chosen.data, columns, document=document)
    notes: list[str] = []
    texts = open_texts(as_list(sources), reading, notes)
    limit = chosen.tokenizer.sample
    if limit is None:
        limit = 10_000_000 if chosen.tokenizer.kind == "unigram" else 50_000_000
    with (
        exclusive_lock(folder),
        atomic_folder(folder) as temporary,
        bar("reading text", total_size(texts)) as advance,
    ):
        tokenizer = train(
            sampled(texts, reading, limit, advance), chosen.tokenizer, temporary, notes
        )
        measured = measure(tokenizer, texts, reading)
        report = {"kind": chosen.tokenizer.kind, **measured, "notes": [*notes, *measured["notes"]]}
        write_json(temporary / "fertility.json", report)
    return Result(report, print_fertility)


def _ours(folder: Path, force: bool) -> bool:
    """Return whether a folder may be replaced: one with a tokenizer and no model."""
    return (
        force and (folder / "fertility.json").is_file() and not (folder / "config.json").is_file()
    )


def measure(tokenizer: Tokenizer, texts: Sequence[Texts], reading: Reading) -> dict[str, Any]:
    return fertility(tokenizer, sampled(texts, reading, MEASURED, lambda done: None))


def sampled(texts: Sequence[Texts], reading: Reading, limit: int, advance: Any) -> Iterator[str]:
    """Yield about the first `limit` characters of each source; 0: all."""
    for source in texts:
        tally = Tally()
        read = 0
        reached = 0
        for piece in source.pieces(reading, tally):
            text = piece.text[: limit - read] if limit else piece.text
            yield text
            advance(tally.read() - reached)
            read = read + len(text)
            reached = tally.read()
            if limit and read >= limit:
                break
        advance((source.size or reached) - reached)


def as_list(sources: Any) -> list[Any]:
    """Return one source, or a list of sources, as a list; a list of records is one source. Strings
    are names of sources, never texts.
    """
    several = isinstance(sources, (list, tuple)) and not any(
        isinstance(each, Mapping) for each in sources
    )
    return list(sources) if several else [sources]


def total_size(texts: Sequence[Texts]) -> int | None:
    sizes = [source.size for source in texts]
    return None if None in sizes else sum(size or 0 for size in sizes)
