"""What arrives: texts that a tokenizer is to be trained on. What leaves: the same texts, long words
cut, and a count.

A word is what the tokenizer's own rules cut a text into before anything is learned: a run of
letters, of spaces, or, in scripts that write no spaces, a whole clause. The time of the library's
trainers grows with the square of a word's length (300,000 letters without a space: 48 seconds of
BPE, and a crash of Unigram), and WordPiece reads a word of more than a hundred characters as one
unknown token. Most texts have no such word: a look at one place in every half of a limit finds
where one can be, at no cost that shows.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from langue.wording import counted

LIMIT = 1000  # characters of a word in training
WORDPIECE_LIMIT = 100  # of WordPiece's words, in use too: what BERT's published tokenizers have

_SPACE = re.compile(r"\s")
_RUN = re.compile(r"\s+|\S+")


@dataclass
class LongWords:
    """Counts the words of texts that are longer than a limit, and cuts there."""

    limit: int
    normalizer: Any = None  # of the `tokenizers` library, or None
    pre_tokenizer: Any = None  # likewise; None: a whole text is a word, and no trainer looks at it
    words: int = 0  # that were longer
    characters: int = 0  # in them

    def cut(self, texts: Iterable[str]) -> Iterator[str]:
        """The texts, in parts where a word is longer than the limit: between its pieces nothing is
        learned.
        """
        for text in texts:
            begin = 0
            for place in self._places(text):
                yield text[begin:place]
                begin = place
            yield text[begin:] if begin else text

    def count(self, texts: Iterable[str]) -> None:
        """Only count, after the texts are normalised as they will be in use."""
        for text in texts:
            for begin, end in long_runs(text, self.limit):
                run = text[begin:end]
                normal = run if self.normalizer is None else self.normalizer.normalize_str(run)
                self._long(normal)

    def note(self, what: str) -> list[str]:
        """What became of them, for the report; nothing where there were none."""
        if not self.words:
            return []
        words = counted(self.words, "word")
        return [
            f"{words} longer than {self.limit:,} characters ({self.characters:,} in all): {what}"
        ]

    def _places(self, text: str) -> Iterator[int]:
        """Where the text is cut."""
        for begin, end in long_runs(text, self.limit):
            for first, last in self._long(text[begin:end]):
                yield from range(begin + first + self.limit, begin + last, self.limit)

    def _long(self, run: str) -> list[tuple[int, int]]:
        """Where words that are longer than the limit begin and end in a run; they are counted."""
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
    """(begin, end) of each run of more than `limit` characters that holds no white space, or
    nothing else.

    A run that is longer than `limit` covers one window of half of it, of those that stand side by
    side, entirely.
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
        assert run is not None  # the window holds white space alone, or none
        if run.end() - first > limit:
            yield first, run.end()
        begin = max(run.end(), end)


def _reaches_back(before: str, blank: bool) -> int:
    """How many characters at the end of what stands before a window are of the window's run."""
    if blank:
        return len(before) - len(before.rstrip())
    spaces = list(_SPACE.finditer(before))
    return len(before) - (spaces[-1].end() if spaces else 0)
