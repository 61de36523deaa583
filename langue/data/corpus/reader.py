"""Reads a corpus folder: the tokens of its documents, memory-mapped, and the mixture of sources.

    corpus.json      format, dtype, vocabulary, the tokenizer's checksum; for each split its
                     shards and its sources
    tokenizer.json   and what belongs to it
    train-00000.bin  tokens, one after the other, little-endian uint16 (uint32 where the
                     vocabulary needs it)
    train-00000.idx  where each document starts, little-endian uint64, and where the last one
                     ends; dev-* likewise

Only the tokens of the text are stored; the objective adds those that begin and end a text.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langue import files
from langue.errors import DataError, RunError
from langue.text.tokenizers.tokenizer import Tokenizer

FORMAT = 1
DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
COUNTS = ("tokens", "documents", "bytes", "characters")
_FILE = re.compile(r"(train|dev)-\d{5,9}")
_AGAIN = "build it again with langue data tokenize"
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Shard:
    """One pair of files."""

    file: str  # without suffix
    tokens: int
    documents: int
    bytes: int
    characters: int
    bin_sha256: str
    idx_sha256: str

    def to_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


class Corpus:
    """One split of a corpus folder."""

    def __init__(
        self, folder: Path, split: str, facts: Mapping[str, Any], tokenizer: Tokenizer
    ) -> None:
        """`facts` is a corpus.json that `checked` let pass."""
        self.folder = folder
        self.split = split
        self.tokenizer = tokenizer
        self.vocab_size: int = facts["vocab_size"]
        self.dtype = DTYPES[facts["dtype"]]
        said = facts["splits"][split]
        self.shards = [Shard(**shard) for shard in said["shards"]]
        self.n_tokens, self.n_documents, self.n_bytes, self.n_characters = (
            sum(getattr(shard, name) for shard in self.shards) for name in COUNTS
        )
        unknown = facts.get("unknown", {}).get(split, {})  # which corpora of before do not have
        # tokens that stand for what the tokenizer does not know
        self.unknown: int | None = unknown.get("tokens")
        self.lost_bytes: float = unknown.get("bytes") or 0.0  # of text behind them
        self.sources = [
            (each["name"], float(each["weight"]), each["first"], each["last"])
            for each in said["sources"]
        ]
        self._maps = [
            _mapped(folder / f"{shard.file}.bin", self.dtype, shard.tokens) for shard in self.shards
        ]
        indices = [self._index(shard) for shard in self.shards]
        tokens = np.cumsum([0, *(shard.tokens for shard in self.shards)])
        parts = [index[:-1] + begin for index, begin in zip(indices, tokens[:-1], strict=True)]
        self._starts = np.concatenate([*parts, tokens[-1:]]).astype(np.int64)  # (documents + 1,)
        self._shard_tokens = tokens  # (shards + 1,) where each shard begins

    @classmethod
    def open(cls, folder: Path, split: str = "train") -> "Corpus":
        """DataError where the folder is no corpus, was not finished, or its files are not what it
        says they are.
        """
        folder = Path(folder)
        facts = read_facts(folder)
        if split not in facts["splits"]:
            there = ", ".join(facts["splits"])
            do = f"it has {there}; give text for {split} too"
            raise DataError(f"the corpus has no split {split!r}", where=str(folder), do=do)
        path = folder / "tokenizer.json"
        if not path.is_file() or files.sha256(path) != facts["tokenizer_sha256"]:
            what = (
                "is missing"
                if not path.is_file()
                else "is not the one that the corpus was made with"
            )
            raise DataError(f"the tokenizer {what}", where=str(path), do=_AGAIN)
        tokenizer = Tokenizer.load(folder)
        if vocabulary(tokenizer) != facts["vocab_size"]:
            what = (
                f"a vocabulary of {facts['vocab_size']:,} where the tokenizer has"
                f" {vocabulary(tokenizer):,}"
            )
            raise DataError(what, where=str(folder / "corpus.json"), do=_AGAIN)
        return cls(folder, split, facts, tokenizer)

    @cached_property
    def lengths(self) -> Numbers:
        """(documents,) tokens of each."""
        return np.diff(self._starts)

    def tokens(self, documents: Numbers, begin: Numbers, length: Numbers) -> NDArray[np.int32]:
        """The flat run of `length[i]` tokens from `begin[i]` on of document `documents[i]`, for all
        i.
        """
        documents, begin, length = (
            np.asarray(each, np.int64) for each in (documents, begin, length)
        )
        if not len(documents):
            return np.zeros(0, np.int32)
        if documents.min() < 0 or documents.max() >= self.n_documents:
            raise IndexError(f"the corpus has documents 0 to {self.n_documents - 1}")
        first = self._starts[documents] + begin
        if (
            begin.min() < 0
            or length.min() < 0
            or np.any(first + length > self._starts[documents + 1])
        ):
            raise IndexError("a slice goes beyond its document")
        shard = np.searchsorted(self._shard_tokens, first, side="right") - 1
        ends = np.cumsum(length)
        out = np.empty(int(ends[-1]), np.int32)
        local = first - self._shard_tokens[shard]
        slices = zip(
            *(each.tolist() for each in (shard, local, local + length, ends - length, ends)),
            strict=True,
        )
        for which, low, high, to, end in slices:  # one copy a slice, about a microsecond
            if end > to:
                out[to:end] = self._maps[which][low:high]
        if len(out) and int(out.max()) >= self.vocab_size or out.min(initial=0) < 0:
            raise DataError(
                f"a token beyond the vocabulary of {self.vocab_size:,}",
                where=str(self.folder),
                do=f"damaged: {_AGAIN}",
            )
        return out

    def text(self, document: int) -> str:
        """A document as its tokens say it."""
        whole = self.tokens(
            np.array([document]), np.array([0]), self.lengths[document : document + 1]
        )
        return self.tokenizer.decode(whole.tolist(), skip_special=False)

    def count(self, token: int, most: int = 0) -> tuple[int, int]:
        """How often a token stands in the first `most` tokens (0: in all), and how many those
        are.
        """
        found = read = 0
        for part in self._maps:
            part = part[: most - read] if most else part
            found += int(np.count_nonzero(part == token))
            read += len(part)
        return found, read

    def verify(self) -> None:
        """DataError at the first file whose checksum is not the one that it was written with. Reads
        everything.
        """
        for shard in self.shards:
            for suffix, said in ((".bin", shard.bin_sha256), (".idx", shard.idx_sha256)):
                path = self.folder / f"{shard.file}{suffix}"
                if files.sha256(path) != said:
                    raise DataError(
                        "the checksum is wrong: the file was changed", where=str(path), do=_AGAIN
                    )

    def _index(self, shard: Shard) -> NDArray[np.int64]:
        path = self.folder / f"{shard.file}.idx"
        starts = _mapped(path, np.dtype("<u8"), shard.documents + 1)
        ordered = bool(np.all(starts[1:] >= starts[:-1]))
        if not ordered or int(starts[0]) != 0 or int(starts[-1]) != shard.tokens:
            raise DataError(
                "its documents do not fit its tokens", where=str(path), do=f"damaged: {_AGAIN}"
            )
        return starts.astype(np.int64)


def vocabulary(tokenizer: Tokenizer) -> int:
    """One more than the largest id."""
    return 1 + max(tokenizer.backend.get_vocab(with_added_tokens=True).values(), default=0)


def _mapped(path: Path, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    """The file's numbers, after its size is found to be right."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(
            f"a shard cannot be read: {error.strerror}", where=str(path), do=_AGAIN
        ) from None
    if size != count * dtype.itemsize:
        what = f"{size:,} bytes where {count * dtype.itemsize:,} were written"
        fault = "cut short" if size < count * dtype.itemsize else "too long"
        raise DataError(f"the shard is {fault}: {what}", where=str(path), do=_AGAIN)
    return np.memmap(path, dtype, mode="r") if size else np.zeros(0, dtype)


def is_corpus(folder: Path) -> bool:
    try:
        return (folder / "corpus.json").is_file()
    except OSError:  # what is too long for a name is none
        return False


def read_facts(folder: Path) -> dict[str, Any]:
    """corpus.json, each value of its type and consistent."""
    path = folder / "corpus.json"
    if not path.is_file():
        if (folder / "building.json").is_file():
            raise DataError(
                "the corpus is not finished",
                where=str(folder),
                do="run its langue data tokenize again: it goes on",
            )
        raise DataError(
            "not a corpus: it has no corpus.json",
            where=str(folder),
            do="make one: langue data tokenize",
        )
    try:
        facts = files.read_json(path)
    except RunError as error:
        raise DataError(error.what, where=error.where, do=_AGAIN) from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        found = facts.get("format") if isinstance(facts, dict) else None
        raise DataError(
            f"format {found!r:.20} is not read here, only {FORMAT}", where=str(path), do=_AGAIN
        )
    problem = _problem(facts)
    if problem:
        raise DataError(f"not a usable corpus.json: {problem}", where=str(path), do=_AGAIN)
    return facts


def _problem(facts: dict[str, Any]) -> str:
    """What is wrong with the content of corpus.json, or nothing."""
    size = facts.get("vocab_size")
    splits = facts.get("splits")
    if facts.get("dtype") not in list(DTYPES):
        return f"dtype {facts.get('dtype')!r:.20}"
    if not _count(size) or not 0 < size <= np.iinfo(DTYPES[facts["dtype"]]).max + 1 or size > 2**31:  # type: ignore
        return f"vocab_size {size!r:.20}"
    if (
        not isinstance(facts.get("tokenizer_sha256"), str)
        or not isinstance(splits, dict)
        or not splits
    ):
        return "no checksum of the tokenizer, or no splits"
    for name, split in splits.items():
        if name not in ("train", "dev") or not isinstance(split, dict):
            return f"a split {name!r:.20}"
        shards = split.get("shards")
        sources = split.get("sources")
        if not isinstance(shards, list) or not all(_is_shard(shard, name) for shard in shards):
            return f"the shards of {name}"
        if not isinstance(sources, list) or not _are_sources(
            sources, sum(shard["documents"] for shard in shards)
        ):
            return f"the sources of {name}"
    return "" if _are_unknown(facts.get("unknown", {})) else "the unknown tokens"


def _are_unknown(said: Any) -> bool:
    """Whether it says how many tokens of each split are unknown, and how many bytes they stand for,
    if it is known.
    """
    if not isinstance(said, dict) or not all(isinstance(each, dict) for each in said.values()):
        return False
    return all(
        _count(each.get("tokens")) and (each.get("bytes") is None or _count(each["bytes"]))
        for each in said.values()
    )


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_shard(shard: Any, split: str) -> bool:
    if not isinstance(shard, dict) or set(shard) != set(Shard.__dataclass_fields__):
        return False
    named = (
        isinstance(shard["file"], str)
        and _FILE.fullmatch(shard["file"])
        and shard["file"].startswith(split)
    )
    hashed = all(isinstance(shard[name], str) for name in ("bin_sha256", "idx_sha256"))
    return bool(named and hashed and all(_count(shard[name]) for name in COUNTS))


def _are_sources(sources: list[Any], documents: int) -> bool:
    """Whether they cover the documents without gap."""
    at: Any = 0
    for each in sources:
        if not isinstance(each, dict) or not isinstance(each.get("name"), str):
            return False
        weight = each.get("weight")
        first = each.get("first")
        last = each.get("last")
        good = (
            isinstance(weight, int | float)
            and not isinstance(weight, bool)
            and math.isfinite(weight)
            and weight > 0
        )
        if not good or not _count(first) or not _count(last) or first != at or last < first:
            return False
        at = last
    return bool(at == documents)
