"""What arrives: texts that a system wrote, and the references of each. What leaves: how many
n-grams and how long a common subsequence they share: ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004).

English is cut into words as the package `rouge-score` cuts it, without stemming, and gives its
numbers. That package keeps Latin letters and digits alone; of other languages words are runs of any
letters and digits, and of scripts that write no spaces each character is one.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from langue.text.quality.script import WORD

METRICS = ("rouge1", "rouge2", "rougeL")
MOSTLY = 0.98  # share of letters that are ASCII's, from which on a text is cut as English

_ENGLISH = re.compile(r"[a-z0-9]+")

Tokens = list[str]


def scores(written: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """(N, 3): ROUGE-1, ROUGE-2 and ROUGE-L (F1, on a scale of 100) of each text with the reference
    that it is nearest to.
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
    """How texts such as this one are cut."""
    letters = [character for character in text if character.isalpha()]
    ascii_letters = sum(character.isascii() for character in letters)
    if ascii_letters >= MOSTLY * len(letters):
        return english_tokens
    return word_tokens


def english_tokens(text: str) -> Tokens:
    """As `rouge-score` cuts a text: small Latin letters and digits."""
    return _ENGLISH.findall(text.lower())


def word_tokens(text: str) -> Tokens:
    """Words of any letters, and each character of a script without spaces."""
    return WORD.findall(text.lower())


def _scores(written: Tokens, reference: Tokens) -> tuple[float, float, float]:
    """The METRICS of two texts, as shares."""
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
    """How many tokens the longest has, by bits of whole numbers (Hyyrö 2004): bit i of `row` is 0
    where it becomes longer with token i of `one`.
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
