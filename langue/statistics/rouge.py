"""ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004) of generated texts: the overlap of n-grams and the
longest common subsequence with their references.

English is tokenized as in the package `rouge-score`, without stemming, and gets the same scores.
That package keeps only Latin letters and digits; in other languages, tokens here are runs of any
letters and digits, and single characters in scripts without spaces.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from langue.text.quality.script import WORD

METRICS = ("rouge1", "rouge2", "rougeL")
MOSTLY = 0.98  # minimum share of ASCII letters for a text to be tokenized as English

_ENGLISH = re.compile(r"[a-z0-9]+")

Tokens = list[str]


def scores(written: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Return (N, 3): ROUGE-1, ROUGE-2 and ROUGE-L (F1, on a scale of 100), each the maximum over
    the references of a text.
    """
    tokens = tokenizer_for("".join(chain.from_iterable(references)))
    found = np.zeros((len(written), len(METRICS)))
    for row, (text, texts) in enumerate(zip(written, references, strict=True)):
        own = tokens(text)
        each = np.zeros((len(texts), len(METRICS)))
        for place, reference in enumerate(texts):
            each[place] = _scores(own, tokens(reference))
        found[row] = each.max(axis=0, initial=0.0)
    return 100 * found


def tokenizer_for(text: str) -> Callable[[str], Tokens]:
    """Return the tokenizer for texts like this one."""
    letters = [character for character in text if character.isalpha()]
    ascii_letters = sum(character.isascii() for character in letters)
    if ascii_letters >= MOSTLY * len(letters):
        return english_tokens
    return word_tokens


def english_tokens(text: str) -> Tokens:
    """Tokenize a text as `rouge-score` does: lower-case Latin letters and digits."""
    return _ENGLISH.findall(text.lower())


def word_tokens(text: str) -> Tokens:
    """Return words of any letters, and single characters of scripts without spaces."""
    return WORD.findall(text.lower())


def _scores(written: Tokens, reference: Tokens) -> tuple[float, float, float]:
    """Return the METRICS of two texts, as fractions of 1."""
    common = longest_common_subsequence(written, reference)
    return (
        _f1_of_ngrams(written, reference, 1),
        _f1_of_ngrams(written, reference, 2),
        _f1(common, len(written), len(reference)),
    )


def _f1_of_ngrams(written: Tokens, reference: Tokens, n: int) -> float:
    own = Counter(_ngrams(written, n))
    true = Counter(_ngrams(reference, n))
    shared = own & true
    return _f1(shared.total(), own.total(), true.total())


def _ngrams(tokens: Tokens, n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[begin : begin + n]) for begin in range(len(tokens) - n + 1)]


def _f1(shared: int, written: int, reference: int) -> float:
    return 2 * shared / (written + reference) if shared else 0.0


def longest_common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, computed with the bits of integers
    (Hyyrö 2004).

    Bit i of `row` is 0 if the subsequence becomes longer with token i of `one`.
    """
    places: dict[str, int] = {}
    for index, token in enumerate(one):
        places[token] = places.get(token, 0) | 1 << index
    full = (1 << len(one)) - 1
    row = full
    for token in other:
        matching = row & places.get(token, 0)
        row = ((row + matching) | (row - matching)) & full
    return len(one) - row.bit_count()
