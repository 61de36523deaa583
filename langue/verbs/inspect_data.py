"""Describe running text or a corpus folder, as data and optionally as an HTML page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from langue.data.corpus.reader import Corpus, is_corpus, read_facts
from langue.errors import DataError
from langue.evaluation import text_report
from langue.files import refuse_existing
from langue.progress import bar
from langue.runs.notebook import Result
from langue.runs.show_text import print_text
from langue.runs.train_tokenizer import as_list, total_size
from langue.settings.sections import OF_READING, resolve_for
from langue.text.quality.survey import CorpusStats, spread
from langue.text.read.documents import Kind, Reading, Tally, open_texts

READ_BACK = 10_000  # limits of the sample of a corpus that is decoded, in documents and characters
READ_BACK_CHARACTERS = 20_000_000


def inspect_data(
    sources: Any,
    *,
    columns: Mapping[str, str] | None = None,
    document: Kind = "file",
    out: str | Path | None = None,
    force: bool = False,
    **settings: Any,
) -> Result:
    """Return the statistics of running text or of a corpus: documents, tokens, lengths, scripts,
    duplicates and examples.

    sources: a corpus folder, or what `tokenize` accepts. In a corpus every document is counted, and
        an evenly spaced sample is decoded to text.
    columns: our names -> names in the data.
    document: what is one document in a .txt file, as in `tokenize`.
    out: an HTML page to write. force: replace it if it exists.
    settings: those `data.*` settings that concern reading.

    Languages are guessed from scripts and common words.
    """
    refuse_existing(out, force)
    named = as_list(sources)
    chosen = resolve_for(OF_READING, settings).data
    folder = Path(named[0]) if len(named) == 1 and isinstance(named[0], (str, Path)) else None
    if (
        folder is not None
        and folder.is_dir()
        and (is_corpus(folder) or (folder / "building.json").is_file())
    ):
        facts = _of_corpus(folder)
    else:
        reading = Reading.of(chosen, columns, document=document)
        facts = _of_texts(named, reading)
    if out is not None:
        text_report.write(Path(out), facts)
    return Result(facts, print_text)


def _of_texts(named: list[Any], reading: Reading) -> dict[str, Any]:
    notes: list[str] = []
    survey = CorpusStats()
    tally = Tally()
    texts = open_texts(named, reading, notes)
    with bar("reading text", total_size(texts)) as advance:
        for source in texts:
            for split in ("train", "dev"):
                for piece in source.pieces(reading, tally, split):
                    survey.add(piece.text, piece.last)
                    done = tally.read()
                    advance(done - tally.told)
                    tally.told = done
    if not survey.lengths:
        raise DataError("there is no text in it", where=texts[0].name, do="give files with text")
    for count, what in (
        (tally.empty, "empty documents are not counted"),
        (tally.invalid, "unusable rows are dropped"),
    ):
        notes += [f"{count:,} {what}"] if count else []
    return {
        "name": ", ".join(source.name for source in texts),
        "tokens": None,
        **survey.facts(),
        "notes": notes,
    }


def _of_corpus(folder: Path) -> dict[str, Any]:
    said = read_facts(folder)
    corpora = [Corpus.open(folder, split) for split in said["splits"]]
    survey = CorpusStats()
    notes = []
    lengths = np.concatenate([corpus.lengths for corpus in corpora])
    step = max(1, -(-len(lengths) // READ_BACK))
    read = 0
    for corpus in corpora:
        for number in range(0, corpus.n_documents, step):
            if read < READ_BACK_CHARACTERS and corpus.lengths[number]:
                survey.add(corpus.text(number))
                read += survey.lengths[-1]
    if len(survey.lengths) < len(lengths):
        notes.append(
            f"text, scripts, copies and examples are of {len(survey.lengths):,} of its documents"
        )
    if said.get("duplicates"):
        left = "left out" if said.get("duplicates_dropped") else "kept"
        notes.append(f"{said['duplicates']:,} exact copies were {left} when it was made")
    splits = {
        corpus.split: {
            "documents": corpus.n_documents,
            "tokens": corpus.n_tokens,
            "bytes": corpus.n_bytes,
        }
        for corpus in corpora
    }
    exact = {"documents": len(lengths), "tokens": int(lengths.sum())}
    exact |= {
        "characters": sum(c.n_characters for c in corpora),
        "bytes": sum(c.n_bytes for c in corpora),
    }
    token_lengths = {"unit": "tokens", **spread(lengths)}
    return {
        **{
            "name": str(folder),
            **survey.facts(),
            **exact,
            "token_lengths": token_lengths,
            "splits": splits,
        },
        "sources": [list(source) for source in corpora[0].sources],
        "notes": notes,
    }
