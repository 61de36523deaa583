"""Compare the speed at which langue turns text into a corpus with the tokenizers library alone.

The library's side is `encode_batch_fast` on texts in memory, in one call and, since that may cost
it memory, in calls of 1,000 texts; the results are discarded. The faster of the two counts. langue
starts from a .jsonl file: it reads, parses, hashes, splits, encodes, and writes shards with their
checksums to disk. The text is divided into parts, and all sides process each part in turn, so that
other load on the machine affects all of them equally.
"""

import gzip
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.machine import facts
from benchmarks.material import data_folder
from benchmarks.noise import wait_until_quiet
from langue.data.corpus.builder import Building, build
from langue.data.corpus.split import SplitAssignment
from langue.settings.sections import resolve
from langue.text.read.documents import Reading, open_texts
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.training import train

PARTS = 6
GOAL = 0.9
SIDES = {
    "one call": "tokenizers, one call, nothing kept",
    "calls of 1,000": "tokenizers, calls of 1,000 texts, nothing kept",
    "langue": "langue, file to corpus",
}


def run(megabytes: float, patience: float) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        parts = _parts(folder, megabytes)
        tokenizer = _tokenizer(folder, parts[0])
        wait_until_quiet(patience)
        rows = [_turns(folder, part, tokenizer, index) for index, part in enumerate(parts)]
    total = {key: sum(row[key] for row in rows) for key in rows[0]}
    best = min(("one call", "calls of 1,000"), key=total.__getitem__)
    ratios = [row[best] / row["langue"] for row in rows]
    ratio = total[best] / total["langue"]
    cpu_ratio = total[f"{best} cpu"] / total["langue cpu"]
    title = (
        f"{total['megabytes']:.0f} MB of reviews to a corpus, byte-level BPE of {len(tokenizer):,}"
        " tokens"
    )
    text = "\n".join(
        [
            f"### {title}",
            "",
            "| side | MB/s | seconds | processor seconds |",
            "|---|---|---|---|",
            *(
                f"| {told} | {total['megabytes'] / total[key]:.2f} | {total[key]:.1f} |"
                f" {total[f'{key} cpu']:.1f} |"
                for key, told in SIDES.items()
            ),
            "",
            (
                f"langue reaches {ratio:.1%} of the library's speed by the clock and"
                f" {cpu_ratio:.1%} by processor time (parts:"
                f" {', '.join(f'{each:.1%}' for each in ratios)}; median"
                f" {statistics.median(ratios):.1%}; goal {GOAL:.0%}:"
                f" {'reached' if min(ratio, cpu_ratio) >= GOAL else 'missed'})"
            ),
            "",
        ]
    )
    print(text)
    print(
        results.save(
            "shards",
            {
                "machine": facts(),
                "parts": rows,
                "total": total,
                "ratio": ratio,
                "cpu_ratio": cpu_ratio,
            },
            text,
        )
    )


def _reviews() -> Iterator[str]:
    """Yield IMDb's reviews repeatedly."""
    while True:
        for name in ("train", "test"):
            with gzip.open(
                data_folder() / "imdb" / f"{name}.jsonl.gz", "rt", encoding="utf-8"
            ) as file:
                yield from (json.loads(line)["text"] for line in file)


def _parts(folder: Path, megabytes: float) -> list[Path]:
    texts = _reviews()
    paths = []
    for index in range(PARTS):
        path = folder / f"part-{index}.jsonl"
        size = 0
        with path.open("w", encoding="utf-8") as file:
            while size < megabytes * 1e6 / PARTS:
                text = next(texts)
                size += len(text.encode("utf-8"))
                file.write(json.dumps({"text": text}) + "\n")
        paths.append(path)
    return paths


def _texts(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def _tokenizer(folder: Path, path: Path) -> Tokenizer:
    sample = (text for text, _ in zip(_texts(path), range(6000), strict=False))
    return train(sample, resolve({"tokenizer.vocab_size": 8192}).tokenizer, folder / "tokenizer")


def _turns(folder: Path, path: Path, tokenizer: Tokenizer, turn: int) -> dict[str, float]:
    texts = _texts(path)
    row: dict[str, float] = {"megabytes": sum(len(text.encode("utf-8")) for text in texts) / 1e6}

    def library(size: int) -> Any:
        for begin in range(0, len(texts), size):
            tokenizer.backend.encode_batch_fast(
                texts[begin : begin + size], add_special_tokens=False
            )

    def langue() -> Any:
        reading = Reading()
        building = Building(open_texts([path], reading, []), tokenizer, reading, SplitAssignment())
        return build(building, folder / f"corpus-{path.stem}")

    works: list[Callable[[], Any]] = [lambda: library(len(texts)), lambda: library(1000), langue]
    sides = list(zip(SIDES, works, strict=True))
    for name, work in sides[turn % 3 :] + sides[: turn % 3]:
        began = time.perf_counter()
        cpu = os.times()
        work()
        after = os.times()
        row[name] = time.perf_counter() - began
        row[f"{name} cpu"] = after.user - cpu.user + after.system - cpu.system
    return row
