"""Tokenize running text into a corpus folder for pretraining."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langue.data.corpus.builder import Building, build
from langue.data.corpus.split import SplitAssignment
from langue.hub.checkpoint import locate
from langue.progress import bar
from langue.runs.corpora import notes_on_held_out
from langue.runs.notebook import Result
from langue.runs.show_text import print_corpus
from langue.runs.train_tokenizer import as_list, total_size
from langue.settings.sections import OF_BUILDING, resolve_for
from langue.text.read.documents import Kind, Reading, open_texts
from langue.text.tokenizers.tokenizer import SIDE_FILES, Tokenizer


def tokenize(
    sources: Any,
    *,
    tokenizer: str | Path,
    out: str | Path,
    columns: Mapping[str, str] | None = None,
    document: Kind = "file",
    dedup: bool = False,
    force: bool = False,
    **settings: Any,
) -> Result:
    """Tokenize text into shards of a corpus folder, and return a summary of the corpus.

    sources: files, folders, Hub data sets or lists of texts, each optionally `PATH@WEIGHT`, with
        the weight of its documents in an epoch relative to the others.
    tokenizer: a folder or a Hub name.
    out: the corpus folder. An interrupted call continues if it is repeated. force: replace it.
    columns: our names -> names in the data.
    document: what is one document in a .txt file; in other files, each row is one.
    dedup: leave out exact duplicates of earlier documents.
    settings: `data.dev_fraction`, `data.encoding`, `data.invalid`, `data.shard_tokens`,
        `data.seed`.
    """
    chosen = resolve_for(OF_BUILDING, settings, {"data.dev_fraction": None}).data
    reading = Reading.of(chosen, columns, document=document)
    division = SplitAssignment.of(chosen.dev_fraction, chosen.seed, dedup)
    notes: list[str] = []
    texts = open_texts(as_list(sources), reading, notes)
    found = Tokenizer.load(
        locate(tokenizer, patterns=("tokenizer.json", "config.json", *SIDE_FILES))
    )
    building = Building(texts, found, reading, division, chosen.shard_tokens)
    with bar("text to tokens", total_size(texts)) as advance:
        facts = build(building, Path(out), force=force, progress=advance, notes=notes)
    result = {"out": str(out), **summary(facts)}
    if "dev" in result["splits"]:
        train, dev = (result["splits"][split]["documents"] for split in ("train", "dev"))
        notes += notes_on_held_out(train, dev, "setting")
    return Result({**result, "notes": notes}, print_corpus)


def summary(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of corpus.json with sums for each split instead of individual shards."""
    splits = {}
    for name, split in facts["splits"].items():
        sums = {key: sum(shard[key] for shard in split["shards"]) for key in _SUMS}
        splits[name] = {**sums, "shards": len(split["shards"]), "sources": split["sources"]}
    rest = ("dtype", "vocab_size", "duplicates", "duplicates_dropped", "empty", "invalid")
    return {"splits": splits, **{key: facts[key] for key in rest}}


_SUMS = ("documents", "tokens", "characters", "bytes")
