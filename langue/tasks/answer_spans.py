"""What arrives: how well an answer starts and ends at each token of a context. What leaves: the
likeliest spans of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` of a context, and how likely it is that they are the answer."""

    text: str
    start: int
    end: int
    score: float

    def as_json(self) -> dict[str, Any]:
        return {"score": self.score, "start": self.start, "end": self.end, "answer": self.text}


@dataclass(frozen=True)
class Answered:
    """The likeliest answers to a question, all different, the best first."""

    spans: list[Span]
    nothing: float = 0.0  # how likely it is that there is none
    odds: float = -math.inf  # the logarithm of how much likelier that is than the best span


def best_answers(
    context: str,
    offsets: NDArray[np.int32],
    windows: Sequence[tuple[int, NDArray[np.float64]]],
    *,
    longest: int,
    count: int,
    nothing: float | None,
) -> Answered:
    """The `count` likeliest spans of a context, all different, and whether there is no answer.

    offsets (G, 2): the characters of its tokens. windows: of each the first token that it shows and
    the scores (t, 2) of those that it shows. longest: tokens of a span. nothing: the score of there
    being no answer; None: that is no answer. A span's score is the sum of its start's and its
    end's, the highest of the windows that show it whole; probabilities are the softmax over all
    spans, each counted once, and `nothing`.
    """
    width = min(longest, len(offsets))
    band = np.full((len(offsets), width), -np.inf)  # token of the start, tokens to the end
    for first, scores in windows:
        ends = np.concatenate([scores[:, 1], np.full(width - 1, -np.inf)])
        following = np.lib.stride_tricks.sliding_window_view(ends, width)  # (t, width)
        rows = slice(first, first + len(scores))
        band[rows] = np.maximum(band[rows], scores[:, :1] + following)
    flat = band.ravel()
    largest = float(flat.max())
    if nothing is not None:
        largest = max(largest, nothing)
    total = float(np.exp(flat - largest).sum())
    if nothing is not None:
        total += math.exp(nothing - largest)
    spans = []
    for place, text, start in _different(context, offsets, flat, width, count):
        score = math.exp(flat[place] - largest) / total
        spans.append((place, Span(text, start, start + len(text), score)))
    if nothing is None:
        return Answered([span for _, span in spans])
    odds = nothing - float(flat[spans[0][0]]) if spans else math.inf
    return Answered([span for _, span in spans], math.exp(nothing - largest) / total, odds)


def _different(
    context: str, offsets: NDArray[np.int32], flat: NDArray[np.float64], width: int, count: int
) -> list[tuple[int, str, int]]:
    """(place, text, start) of the spans of the highest scores whose characters differ."""
    possible = int(np.isfinite(flat).sum())
    tried = min(possible, 2 * count)
    while True:
        chosen = np.arange(len(flat))
        if tried < len(flat):
            chosen = np.argpartition(-flat, tried - 1)[:tried]
        order = chosen[np.lexsort((chosen, -flat[chosen]))][:tried]
        found: dict[tuple[int, int], tuple[int, str, int]] = {}
        for place in order.tolist():
            token, more = divmod(place, width)
            start = int(offsets[token, 0])
            end = int(offsets[token + more, 1])
            whole = context[start:end]
            text = whole.strip()  # some tokenizers count the blank before a word to it
            start += len(whole) - len(whole.lstrip())
            if text:
                found.setdefault((start, len(text)), (place, text, start))
            if len(found) == count:
                break
        if len(found) == count or tried >= possible:
            return list(found.values())
        tried = min(possible, 4 * tried)
