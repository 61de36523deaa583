"""Rows of text embeddings: takes the columns of a row; returns a checked `Gold` with the query, its
positive and negative documents, and their similarity scores.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from langue.errors import DataError, ModelError
from langue.tasks.embedding_losses import score_bits
from langue.text.numerals import value_of
from langue.text.read.parse import is_missing, replace_lone_surrogates

if TYPE_CHECKING:
    from langue.text.read.source import Table

SHOWN = 80  # characters of a text that are shown
SCALES = (1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 100.0)  # common upper ends of similarity scales


@dataclass(frozen=True)
class Gold:
    """The query of a row, with its documents and their scores."""

    query: str
    documents: tuple[str, ...]  # the positive, then the negatives
    scores: tuple[float, ...] = ()  # one for each document; empty: unknown


def read_row(
    text: str,
    pair: Any,
    given: Sequence[Any],
    score: Sequence[Any],
    where: Callable[[], str],
) -> Gold:
    """Return the checked content of a row; raise DataError, at `where()`, if it is invalid.

    given: the negatives, from columns of texts or of lists of texts. score: one value if the table
    has a score column, otherwise empty.
    """
    fix = "correct it or take it out (in training: data.invalid=drop)"
    if is_missing(pair):
        raise DataError("the pair is empty", where=where(), do=fix)
    query = replace_lone_surrogates(text)
    positive = replace_lone_surrogates(pair)
    negatives = []
    for each in given:
        for negative in each if isinstance(each, list | tuple) else [each]:
            if negative is not None and not isinstance(negative, str | float | int):
                raise DataError(f"the negative {negative!r} is no text", where=where(), do=fix)
            if not is_missing(negative):
                negatives.append(replace_lone_surrogates(str(negative)))
    scores = _scores(score[0], len(negatives), where) if score else ()
    if not scores and query == positive:
        raise DataError("the pair is the text itself", where=where(), do=fix)
    for name, own in (("pair", positive), ("text", query)):
        if own in negatives:
            raise DataError(f"a negative is the {name} itself", where=where(), do=fix)
    kept = [place for place, each in enumerate(negatives) if each not in negatives[:place]]
    documents = (positive, *(negatives[place] for place in kept))
    if scores:
        scores = (scores[0], *(scores[1 + place] for place in kept))
    return Gold(query, documents, scores)


def _scores(value: Any, negatives: int, where: Callable[[], str]) -> tuple[float, ...]:
    """Return a row's scores, for the pair and for each negative.

    A single number with a single negative is the margin between the two.
    """
    given = value if isinstance(value, list | tuple) else [value]
    found = []
    for each in given:
        number = value_of(each)
        if number is None or not math.isfinite(number):
            raise DataError(
                f"the score {each!r} is not a number",
                where=where(),
                do="correct it or take it out (in training: data.invalid=drop)",
            )
        found.append(number)
    if negatives == 1 and len(found) == 1:
        found.append(0.0)
    if len(found) != 1 + negatives:
        raise DataError(
            f"{len(found)} scores for a pair and {negatives} negatives",
            where=where(),
            do=(
                "give a list of one each, the pair's first, or take the row out (in training:"
                " data.invalid=drop)"
            ),
        )
    return tuple(found)


def score_max(golds: Sequence[Gold], given: float | None, train: "Table") -> float:
    """Return the upper end of the score scale."""
    scores = np.asarray([gold.scores[0] for gold in golds if gold.scores])
    if scores.min() == scores.max():
        raise DataError(
            f"every training row has the score {scores[0]:g}",
            where=train.origin,
            do="give scores that differ, or take the column out to learn from the pairs alone",
        )
    most = float(scores.max())
    if given is None and most > SCALES[-1] or scores.min() < -1:
        row = int(scores.argmin() if scores.min() < -1 else scores.argmax())
        raise DataError(
            f"the score {scores[row]:g} is on no scale that is known",
            where=train.where(row),
            do="give scores from 0 (or -1) to 1, or say where the scale ends: task.score_max=...",
        )
    return given if given is not None else scale_of(most)


def scale_of(most: float) -> float:
    """Return the upper end of the smallest common scale that contains the largest score, or that
    score if none does.
    """
    return next((each for each in SCALES if each >= most), most)


def count_negatives(negatives: Sequence[Any]) -> int:
    """Return the number of negatives in a row's columns."""
    count = 0
    for cell in negatives:
        texts = cell if isinstance(cell, list | tuple) else [cell]
        count += sum(not is_missing(text) for text in texts)
    return count


def texts_of_item(item: Any, number: int) -> tuple[str, ...]:
    """Return the texts of a user's item; raise ModelError if it is neither a text nor a pair."""
    if isinstance(item, Mapping):
        parts = [item[name] for name in ("text", "pair") if name in item]
    else:
        parts = list(item) if isinstance(item, tuple | list) else [item]
    if not 0 < len(parts) <= 2 or not all(isinstance(each, str) for each in parts):
        raise ModelError(
            f"item {number} is neither a text nor a pair of texts",
            do='give "...", ("...", "..."), or {"text": "...", "pair": "..."}',
        )
    return tuple(replace_lone_surrogates(each) for each in parts)


def shown(text: str) -> str:
    """Return a text on one line, truncated if it is long."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def numbers_of(texts: Sequence[str]) -> NDArray[np.int64]:
    """Return a number for each text (n,), the same number for equal texts."""
    numbers: dict[str, int] = {}
    for text in texts:
        numbers.setdefault(text, len(numbers))
    return np.asarray([numbers[text] for text in texts], np.int64)


def score_bits_of(golds: Sequence[Gold]) -> NDArray[np.int64]:
    """Return the scores (n,) of all queries and documents as integers (see
    `embedding_losses.score_bits`); NaN for queries and where unknown.
    """
    scores: list[float] = []
    for gold in golds:
        scores.append(math.nan)
        scores += gold.scores or [math.nan] * len(gold.documents)
    return score_bits(np.asarray(scores))
