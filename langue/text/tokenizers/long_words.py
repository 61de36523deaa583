"""Splits and counts the long words in the training texts of a tokenizer.

A word is what the tokenizer's pre-tokenizer produces: a run of letters, of spaces or, in scripts
without spaces, a whole clause. The running time of the library's trainers is quadratic in the
length of a word (300,000 letters without a space: 48 seconds for BPE, and a crash for Unigram), and
WordPiece reads a word of more than a hundred characters as one unknown token. Most texts have no
such word: checking one window for every half of the limit finds all possible positions at
negligible cost.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from langue.wording import counted

LIMIT = 1000  # maximum length of a word in training, in characters
WORDPIECE_LIMIT = 100  # of WordPiece, also in inference: the limit of BERT's published tokenizers

_SPACE = re.compile(r"\s")
_RUN = re.compile(r"\s+|\S+")


@dataclass
class LongWords:
    """Counts the words of texts that are longer than a limit, and splits them there."""

    limit: int
    normalizer: Any = None  # a normalizer of the `tokenizers` library, or None
    # a pre-tokenizer likewise; None: the whole text is one word, which no trainer reads
    pre_tokenizer: Any = None
    words: int = 0  # number of longer words
    characters: int = 0  # number of characters in them

    def cut(self, texts: Iterable[str]) -> Iterator[str]:
        """Yield the texts, split where a word is longer than the limit; nothing is learnt across a
        split.
        """
        for text in texts:
            begin = 0
            for place in self._places(text):
                yield text[begin:place]
                begin = place
            yield text[begin:] if begin else text

    def count(self, texts: Iterable[str]) -> None:
        """Count only, on texts normalised as in inference."""
        for text in texts:
            for begin, end in long_runs(text, self.limit):
                run = text[begin:end]
                normal = run if self.normalizer is None else self.normalizer.normalize_str(run)
                self._long(normal)

    def note(self, what: str) -> list[str]:
        """Describe what was done to the long words, for the report; empty if there were none."""
        if not self.words:
            return []
        words = counted(self.words, "word")
        return [
            f"{words} longer than {self.limit:,} characters ({self.characters:,} in all): {what}"
        ]

    def _places(self, text: str) -> Iterator[int]:
        """Yield the positions at which the text is split."""
        for begin, end in long_runs(text, self.limit):
            for first, last in self._long(text[begin:end]):
                yield from range(begin + first + self.limit, begin + last, self.limit)

    def _long(self, run: str) -> list[tuple[int, int]]:
        """Return the spans of the words in a run that are longer than the limit, and count them."""
        if self.pre_tokenizer is None:
            return []
        words = [
            place
            for _, place in self.pre_tokenizer.pre_tokenize_str(run)
            if place[1] - place[0] > self.limit
        ]
        self.words += len(words)
        self.characters += sum(end - begin for begin, end in words)
        return words


def long_runs(text: str, limit: int) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of each run of more than `limit` characters that contains either no white
    space or only white space.

    Such a run completely covers at least one of the adjacent windows of half the limit.
    """
    half = max(1, limit // 2)
    begin = 0
    while begin + half <= len(text):
        end = begin + half
        space = text.find(" ", begin, end)
        blank = text[begin].isspace() and text[begin:end].isspace()
        if not blank and (space >= 0 or _SPACE.search(text, begin, end)):
            begin = end
            continue
        first = begin - _reaches_back(text[max(0, begin - half) : begin], blank)
        run = _RUN.match(text, begin)
        assert run is not None  # the window contains only white space, or none
        if run.end() - first > limit:
            yield first, run.end()
        begin = max(run.end(), end)


def _reaches_back(before: str, blank: bool) -> int:
    """Return how many characters before a window belong to the run of the window."""
    if blank:
        return len(before) - len(before.rstrip())
    spaces = list(_SPACE.finditer(before))
    return len(before) - (spaces[-1].end() if spaces else 0)
