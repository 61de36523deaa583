"""Decoding of extractive question answering: takes the start and end logits of every context token
and returns the most probable answer spans.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Span:
    """One answer span: characters `start` to `end` of a context, and its probability."""

    text: str
    start: int
    end: int
    score: float

    def as_json(self) -> dict[str, Any]:
        return {"score": self.score, "start": self.start, "end": self.end, "answer": self.text}


@dataclass(frozen=True)
class Answered:
    """The most probable answers to a question, all different, best first."""

    spans: list[Span]
    nothing: float = 0.0  # probability that there is no answer
    odds: float = -math.inf  # log of P(no answer) / P(best span)


def best_answers(
    context: str,
    offsets: NDArray[np.int32],
    windows: Sequence[tuple[int, NDArray[np.float64]]],
    *,
    longest: int,
    count: int,
    nothing: float | None,
) -> Answered:
    """Return the `count` most probable spans of a context, all different, and the null-answer
    score.

    offsets (G, 2): character offsets of the context's tokens. windows: for each window, the index
    of the first context token in it and the logits (t, 2) of the tokens it contains. longest:
    maximum span length in tokens. nothing: the logit of "no answer"; None if every question has an
    answer.

    A span's logit is the sum of its start and end logits; where several windows contain the whole
    span, the highest sum counts. Probabilities are a softmax over all spans, each counted once,
    together with `nothing`.
    """
    width = min(longest, len(offsets))
    # rows: start token; columns: distance to the end token
    band = np.full((len(offsets), width), -np.inf)
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
    for place, text, start in _distinct_spans(context, offsets, flat, width, count):
        score = math.exp(flat[place] - largest) / total
        spans.append((place, Span(text, start, start + len(text), score)))
    if nothing is None:
        return Answered([span for _, span in spans])
    odds = nothing - float(flat[spans[0][0]]) if spans else math.inf
    return Answered([span for _, span in spans], math.exp(nothing - largest) / total, odds)


def _distinct_spans(
    context: str, offsets: NDArray[np.int32], flat: NDArray[np.float64], width: int, count: int
) -> list[tuple[int, str, int]]:
    """Return (place, text, start) of the best-scoring spans that differ in their characters."""
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
            text = whole.strip()  # some tokenizers include the blank before a word in its offsets
            start += len(whole) - len(whole.lstrip())
            if text:
                found.setdefault((start, len(text)), (place, text, start))
            if len(found) == count:
                break
        if len(found) == count or tried >= possible:
            return list(found.values())
        tried = min(possible, 4 * tried)
