"""Builds a corpus folder, which data/corpus/reader.py reads, from raw text and a tokenizer.

One thread reads text while others encode and write it; the `tokenizers` library uses all cores.
Memory holds a few batches, however large the text is. A shard appears once it is complete and on
disk. A build that was killed reads the text again when it is rerun, but encodes only what no
finished shard contains; the result is the same, byte for byte.
"""

import contextlib
import hashlib
import json
import os
import shutil
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from langue import files
from langue.data.corpus.reader import DTYPES, FORMAT, Shard, is_corpus, vocabulary
from langue.data.corpus.split import HashSplitter, SplitAssignment
from langue.errors import DataError, LangueError, RunError
from langue.text.quality.hash_set import Uint64Set
from langue.text.read.documents import PIECE_CHARACTERS, Piece, Reading, Tally, Texts
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.unknown import SAMPLE, Lost, gap_of

SHARD_TOKENS = 1 << 26
SHARD_DOCUMENTS = 1 << 22
# texts that are encoded together, or bytes: a piece a core
BATCH = 256
BATCH_BYTES = (os.cpu_count() or 2) << 20
# bytes that are written together: a document is a few hundred, and not worth a write of its own
WRITTEN = 1 << 19
# whose tokens the library keeps, for the next time that they come; its own 10,000 are soon full
WORDS = 1 << 17
# batches encoded at a time: while one is turned into numbers the other keeps the cores busy
AHEAD = 2
BUILDING = "building.json"
SPLITS = ("train", "dev")
Batch = list[tuple[str, Piece]]


@dataclass(frozen=True)
class Building:
    """What is to be built; anything that changes the result changes its fingerprint."""

    texts: Sequence[Texts]
    tokenizer: Tokenizer
    reading: Reading
    division: SplitAssignment
    shard_tokens: int = SHARD_TOKENS

    def fingerprint(self, tokenizer_sha256: str) -> str:
        said = [
            FORMAT,
            PIECE_CHARACTERS,
            tokenizer_sha256,
            [each.fingerprint() for each in self.texts],
        ]
        said += [
            {**asdict(self.reading), "columns": dict(self.reading.columns)},
            asdict(self.division),
        ]
        said += [self.shard_tokens, SHARD_DOCUMENTS]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def build(
    building: Building,
    out: Path,
    *,
    force: bool = False,
    progress: Callable[[int], None] = lambda done: None,
    notes: list[str] | None = None,
) -> dict[str, Any]:
    """Write the corpus folder; its corpus.json's content is returned. progress: is told bytes of
    files gone through.
    """
    notes = [] if notes is None else notes
    backend = _plain(building.tokenizer)
    _check(out, force)
    with files.replace_on_success(out, force), files.exclusive_lock(out):
        done = _begin(building, out, notes)
        try:
            facts = _write(building, backend, out, done, progress, notes)
        except BaseException:
            if not any(done.values()):  # nothing is there to go on from
                shutil.rmtree(out, ignore_errors=True)
            raise
        with files.disk_errors(out):
            files.write_json(out / "corpus.json", facts)
            (out / BUILDING).unlink()
    return facts


def _plain(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """A copy that takes the names of special tokens in a text for the characters that they are, and
    that remembers more words.
    """
    if tokenizer.has_two_vocabularies:
        raise DataError(
            "the tokenizer has two sides, source and target",
            do="choose one with a single vocabulary",
        )
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    backend.encode_special_tokens = True
    if hasattr(backend.model, "_resize_cache"):  # of BPE and Unigram, and not of every version
        backend.model._resize_cache(WORDS)
    return backend


def _check(out: Path, force: bool) -> None:
    """RunError where the folder is not one to build a corpus in."""
    ours = is_corpus(out) or (out / BUILDING).is_file()
    if out.exists() and not out.is_dir():
        raise RunError("is a file", where=str(out), do="name a folder with --out")
    if is_corpus(out) and not force:
        raise RunError(
            "there is a finished corpus already",
            where=str(out),
            do="name another, or replace it: --force",
        )
    if out.exists() and not ours and any(out.iterdir()):
        raise RunError(
            "the folder holds something else", where=str(out), do="name another with --out"
        )


def _begin(building: Building, out: Path, notes: list[str]) -> dict[str, list[Shard]]:
    """The folder made ready, and the shards in it that are finished and sound."""
    with files.disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        building.tokenizer.save(out)
        mark = building.fingerprint(files.sha256(out / "tokenizer.json"))
        done = _finished(out, mark, notes)
        kept = {
            f"{shard.file}{suffix}"
            for shards in done.values()
            for shard in shards
            for suffix in (".bin", ".idx")
        }
        for path in out.iterdir():
            cut_off = path.name.startswith(
                (".building.json.", ".corpus.json.", ".tokenizer_config.json.")
            )
            if cut_off or path.name.lstrip(".").startswith(SPLITS) and path.name not in kept:
                path.unlink()
        _record(out, mark, done)
    return done


def _finished(out: Path, mark: str, notes: list[str]) -> dict[str, list[Shard]]:
    done: dict[str, list[Shard]] = {split: [] for split in SPLITS}
    if not (out / BUILDING).is_file():
        return done
    try:
        said = files.read_json(out / BUILDING)
        if said["fingerprint"] != mark:
            notes.append(
                f"{out}: text, tokenizer or settings are not those of the build that was cut off;"
                " it is built again from the start"
            )
            return done
        for split in SPLITS:
            for shard in (Shard(**each) for each in said["shards"][split]):
                paths = (
                    (out / f"{shard.file}.bin", shard.bin_sha256),
                    (out / f"{shard.file}.idx", shard.idx_sha256),
                )
                if not all(
                    path.is_file() and files.sha256(path) == said_sha for path, said_sha in paths
                ):
                    notes.append(
                        f"{out}: {shard.file} is damaged; it and what follows is made again"
                    )
                    break
                done[split].append(shard)
    except (LangueError, KeyError, TypeError):
        notes.append(f"{out}: {BUILDING} is not readable; the corpus is built again from the start")
        return {split: [] for split in SPLITS}
    if any(done.values()):
        notes.append(f"{out}: {sum(map(len, done.values()))} finished shards are kept")
    return done


def _record(out: Path, mark: str, done: dict[str, list[Shard]]) -> None:
    shards = {split: [shard.to_dict() for shard in shards] for split, shards in done.items()}
    files.write_json(out / BUILDING, {"fingerprint": mark, "shards": shards})


class _First:
    """The first texts of each split, on which unknown characters are measured: the same ones in a
    build that goes on where it was.
    """

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {split: [] for split in SPLITS}
        self.room = dict.fromkeys(SPLITS, SAMPLE)

    def add(self, split: str, text: str) -> None:
        if self.room[split] > 0:
            self.texts[split].append(text)
            self.room[split] -= len(text)


class _Writer:
    """The shards of one split, one after another."""

    def __init__(
        self, out: Path, split: str, done: list[Shard], building: Building, dtype: np.dtype[Any]
    ) -> None:
        self.out = out
        self.split = split
        self.done = done
        self.dtype = dtype
        self.limit = building.shard_tokens
        self.stack = contextlib.ExitStack()
        self.handle: IO[bytes] | None = None

    def _open(self) -> None:
        name = self.out / f"{self.split}-{len(self.done):05d}"
        self.starts = [0]
        self.counts = dict.fromkeys(("tokens", "documents", "bytes", "characters"), 0)
        self.digest = hashlib.sha256()
        self.waiting = bytearray()
        self.temporary = self.stack.enter_context(files.atomic_file(name.with_suffix(".idx")))
        self.handle = self.stack.enter_context(
            self.stack.enter_context(files.atomic_file(name.with_suffix(".bin"))).open("wb")
        )

    def add(self, tokens: NDArray[Any], piece: Piece) -> bool:
        """Whether this finished a shard."""
        if self.handle is None:
            self._open()
        self.waiting += tokens.tobytes()
        if len(self.waiting) >= WRITTEN:
            self._write()
        counts = self.counts
        counts["tokens"] += len(tokens)
        counts["bytes"] += piece.size
        counts["characters"] += len(piece.text)
        if not piece.last:
            return False
        counts["documents"] += 1
        self.starts.append(counts["tokens"])
        full = counts["tokens"] >= self.limit or counts["documents"] >= SHARD_DOCUMENTS
        return full and self.close()

    def _write(self) -> None:
        assert self.handle is not None
        self.handle.write(self.waiting)
        self.digest.update(self.waiting)
        self.waiting.clear()

    def close(self) -> bool:
        """Finish the shard that is open, if one is."""
        if self.handle is None:
            return False
        self._write()
        index = np.asarray(self.starts, "<u8").tobytes()
        self.temporary.write_bytes(index)
        self.handle = None
        self.stack.close()
        name = f"{self.split}-{len(self.done):05d}"
        self.done.append(
            Shard(
                file=name,
                **self.counts,
                bin_sha256=self.digest.hexdigest(),
                idx_sha256=hashlib.sha256(index).hexdigest(),
            )
        )
        return True


def _write(
    building: Building,
    backend: tokenizers.Tokenizer,
    out: Path,
    done: dict[str, list[Shard]],
    progress: Callable[[int], None],
    notes: list[str],
) -> dict[str, Any]:
    size = vocabulary(building.tokenizer)
    name = "uint16" if size <= 1 << 16 else "uint32"
    mark = files.read_json(out / BUILDING)["fingerprint"]
    tally = Tally()
    divider = HashSplitter(building.reading, building.division, tally, Uint64Set())
    counts = [dict.fromkeys(SPLITS, 0) for _ in building.texts]
    first = _First()
    reached = 0
    with contextlib.ExitStack() as stack:
        writers = {
            split: _Writer(out, split, done[split], building, DTYPES[name]) for split in SPLITS
        }
        for writer in writers.values():
            stack.push(writer.stack)
        pool = stack.enter_context(ThreadPoolExecutor(AHEAD))
        skip = {split: sum(shard.documents for shard in done[split]) for split in SPLITS}
        batches = _batches(_needed(building.texts, divider, counts, skip, first))
        for batch, tokens, ends in _encoded(batches, backend, pool, DTYPES[name], size):
            for (split, piece), begin, end in zip(batch, [0, *ends], ends, strict=False):
                if writers[split].add(tokens[begin:end], piece):
                    _record(out, mark, done)
            progress(tally.read() - reached)
            reached = tally.read()
        for writer in writers.values():
            writer.close()
    progress(tally.read() - reached)
    _record(out, mark, done)
    facts = _facts(building, out, done, counts, divider, name, size, notes)
    return facts | {"unknown": _unknown(building.tokenizer, out, done, DTYPES[name], first, notes)}


def _needed(
    texts: Sequence[Texts],
    divider: HashSplitter,
    counts: list[dict[str, int]],
    skip: dict[str, int],
    first: _First,
) -> Iterator[tuple[str, Piece]]:
    """What finished shards do not hold; `counts` learns how many documents each source gives to
    each split.
    """
    seen = dict.fromkeys(SPLITS, 0)
    for source, count in zip(texts, counts, strict=True):
        for split, piece in divider.divided(source):
            first.add(split, piece.text)
            if seen[split] >= skip[split]:
                yield split, piece
            if piece.last:
                seen[split] += 1
                count[split] += 1


def _batches(pieces: Iterator[tuple[str, Piece]]) -> Iterator[Batch]:
    batch: Batch = []
    size = 0
    for each in pieces:
        batch.append(each)
        size += each[1].size
        if len(batch) >= BATCH or size >= BATCH_BYTES:
            yield batch
            batch = []
            size = 0
    if batch:
        yield batch


def _encoded(
    batches: Iterator[Batch],
    backend: tokenizers.Tokenizer,
    pool: ThreadPoolExecutor,
    dtype: np.dtype[Any],
    size: int,
) -> Iterator[tuple[Batch, NDArray[Any], list[int]]]:
    """Each batch with the flat run of its tokens and where each text's end, in order."""

    def encode(batch: Batch) -> tuple[NDArray[Any], list[int]]:
        texts = [piece.text for _, piece in batch]
        ids = array("I")
        ends = []  # which takes a list in a third of the time that NumPy does
        for each in backend.encode_batch_fast(texts, add_special_tokens=False):
            ids.fromlist(each.ids)
            ends.append(len(ids))
        tokens = np.frombuffer(ids, f"u{ids.itemsize}")
        if len(tokens) and int(tokens.max()) >= size:
            raise DataError(f"the tokenizer gave {tokens.max()}, beyond its vocabulary of {size:,}")
        return tokens.astype(dtype), ends

    waiting: deque[tuple[Batch, Future[tuple[NDArray[Any], list[int]]]]] = deque()
    for batch in batches:
        waiting.append((batch, pool.submit(encode, batch)))
        if len(waiting) > AHEAD:
            first, future = waiting.popleft()
            yield first, *future.result()
    for first, future in waiting:
        yield first, *future.result()


def _facts(
    building: Building,
    out: Path,
    done: dict[str, list[Shard]],
    counts: list[dict[str, int]],
    divider: HashSplitter,
    dtype: str,
    size: int,
    notes: list[str],
) -> dict[str, Any]:
    tally = divider.tally
    if not sum(count["train"] for count in counts):
        names = ", ".join(texts.name for texts in building.texts)
        left = f"{tally.empty:,} empty, {tally.invalid:,} unusable, {divider.duplicates:,} copies"
        raise DataError(f"no document is left to train on: {left}", where=names, do="give text")
    splits = {}
    for split in SPLITS:
        at = 0
        sources = []
        for texts, count in zip(building.texts, counts, strict=True):
            sources.append(
                {"name": texts.name, "weight": texts.weight, "first": at, "last": at + count[split]}
            )
            at += count[split]
        if at:
            splits[split] = {
                "shards": [shard.to_dict() for shard in done[split]],
                "sources": sources,
            }
    if tally.invalid:
        notes.append(
            f"{tally.invalid:,} unusable lines or rows dropped, the first: {tally.first_invalid}"
        )
    return {
        "format": FORMAT,
        "dtype": dtype,
        "vocab_size": size,
        "tokenizer_sha256": files.sha256(out / "tokenizer.json"),
        "splits": splits,
        "duplicates": divider.duplicates,
        "duplicates_dropped": building.division.dedup,
        "empty": tally.empty,
        "invalid": tally.invalid,
    }


def _unknown(
    tokenizer: Tokenizer,
    out: Path,
    done: dict[str, list[Shard]],
    dtype: np.dtype[Any],
    first: _First,
    notes: list[str],
) -> dict[str, dict[str, int | None]]:
    """How many tokens of each split are unknown, and about how many bytes they stand for; notes get
    a line where that is much.
    """
    gap = gap_of(tokenizer)
    counts: dict[str, dict[str, int | None]] = {}
    for split in SPLITS:
        if not done[split]:
            continue
        tokens, characters, size = (
            sum(getattr(shard, name) for shard in done[split])
            for name in ("tokens", "characters", "bytes")
        )
        lost = Lost(tokenizer, tokens=tokens, characters=characters)
        if gap.token is not None:
            lost.unknown = sum(
                _occurrences(out / f"{shard.file}.bin", dtype, gap.token) for shard in done[split]
            )
        if lost.unknown or gap.drops:
            lost.measure(first.texts[split])
        measured = bool(lost.sampled_unknown) or not lost.unknown
        counts[split] = {
            "tokens": lost.unknown,
            "bytes": round(lost.bytes_lost(size)) if measured else None,
        }
        notes += lost.note(f"{split}: ")
    return counts


def _occurrences(path: Path, dtype: np.dtype[Any], token: int) -> int:
    """How often a token stands in a shard."""
    return (
        int(np.count_nonzero(np.memmap(path, dtype, mode="r") == token))
        if path.stat().st_size
        else 0
    )
