"""Statistics and examples of a corpus, collected one document at a time.

Memory is eight to forty bytes per document, plus the examples and the texts among which near copies
are searched, whose number is bounded.
"""

import hashlib
import heapq
import random
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langue.text.quality import script
from langue.text.quality.duplicates import within
from langue.text.quality.hash_set import Uint64Set
from langue.text.quality.language import guess

EXAMPLES = 5
MAIN = 0.8  # minimum share of the characters in the text's language, if it has a single one
SHOWN = 600  # maximum length of an example in characters
# limits of the first documents among which near copies are searched
COMPARED = 20_000
COMPARED_CHARACTERS = 40_000_000


@dataclass
class CorpusStats:
    # length of each document in characters
    lengths: "array[int]" = field(default_factory=lambda: array("q"))
    bytes: int = 0
    words: int = 0
    scripts: Counter[str] = field(default_factory=Counter)
    # number of documents by the language that their script and words suggest
    languages: Counter[str] = field(default_factory=Counter)
    # number of characters by language
    characters_by_language: Counter[str] = field(default_factory=Counter)
    seen: Uint64Set = field(default_factory=Uint64Set)
    exact: int = 0
    compared: list[str] = field(default_factory=list)
    room: int = COMPARED_CHARACTERS
    # heaps of (length, -number, beginning)
    longest: list[tuple[int, int, str]] = field(default_factory=list)
    shortest: list[tuple[int, int, str]] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)
    drawn: random.Random = field(default_factory=lambda: random.Random(0))
    _open: dict[str, Any] = field(default_factory=dict)

    def add(self, text: str, last: bool = True) -> None:
        """Add a document, or the next piece of one."""
        if not self._open:
            self._open = {
                "start": text,
                "length": 0,
                "scripts": Counter(),
                "digest": hashlib.blake2b(digest_size=8),
            }
        raw = text.encode("utf-8")
        self._open["length"] += len(text)
        self._open["scripts"].update(script.count(text))
        self._open["digest"].update(raw)
        self.bytes += len(raw)
        self.words += script.words(text)
        if last:
            self._close(**self._open)
            self._open = {}

    def _close(self, start: str, length: int, scripts: Counter[str], digest: Any) -> None:
        number = len(self.lengths)
        self.lengths.append(length)
        self.scripts.update(scripts)
        language = guess(start, scripts)
        self.languages[language] += 1
        self.characters_by_language[language] += length
        self.exact += not self.seen.add(int.from_bytes(digest.digest(), "little"))
        if number == len(self.compared) < COMPARED and len(start) <= self.room:
            self.compared.append(start)
            self.room -= len(start)
        shown = start[:SHOWN]
        for heap, sign in ((self.longest, 1), (self.shortest, -1)):
            (heapq.heappush if len(heap) < EXAMPLES else heapq.heappushpop)(
                heap, (sign * length, -number, shown)
            )
        if len(self.samples) < EXAMPLES:
            self.samples.append(shown)
        # each document has the same probability (Vitter 1985)
        elif (place := self.drawn.randrange(number + 1)) < EXAMPLES:
            self.samples[place] = shown

    def facts(self) -> dict[str, Any]:
        copies = within(self.compared)
        lengths = np.frombuffer(self.lengths, np.int64) if self.lengths else np.zeros(0, np.int64)
        return {
            "documents": len(lengths),
            "characters": int(lengths.sum()),
            "bytes": self.bytes,
            "words": self.words,
            "lengths": {"unit": "characters", **spread(lengths)},
            "scripts": dict(self.scripts.most_common()),
            "language": self._main_language(),
            "languages": dict(self.languages.most_common()),
            "duplicates": {
                "exact": self.exact,
                "near": len(copies.near),
                "near_among": len(self.compared),
            },
            "longest": [
                _example(length, text) for length, _, text in sorted(self.longest, reverse=True)
            ],
            "shortest": [
                _example(-length, text) for length, _, text in sorted(self.shortest, reverse=True)
            ],
            "samples": self.samples,
        }

    def _main_language(self) -> str:
        """Return the language of most of the text, if there is a single one."""
        language, characters = max(
            self.characters_by_language.items(),
            key=lambda each: each[1],
            default=("none: no letters", 0),
        )
        return language if characters >= MAIN * self.characters_by_language.total() else "several"


def _example(length: int, text: str) -> dict[str, Any]:
    return {"characters": length, "text": text}


def spread(lengths: NDArray[np.int64]) -> dict[str, Any]:
    """Return mean, quantiles, and a histogram with bins of doubling width."""
    if not len(lengths):
        return {
            "mean": 0.0,
            "shortest": 0,
            "median": 0,
            "p90": 0,
            "p99": 0,
            "longest": 0,
            "histogram": [],
        }
    low, median, p90, p99, top = np.quantile(
        lengths, [0, 0.5, 0.9, 0.99, 1], method="nearest"
    ).tolist()
    which = np.floor(np.log2(np.maximum(lengths, 1))).astype(np.int64)
    counts = np.bincount(which)
    bins = [
        {
            "from": 1 << power if power else 0,
            "to": (2 << power) - 1,
            "documents": int(counts[power]),
        }
        for power in range(int(which.min()), int(which.max()) + 1)
    ]
    rest = {"median": median, "p90": p90, "p99": p99, "longest": top, "histogram": bins}
    return {"mean": round(float(lengths.mean()), 1), "shortest": low, **rest}
