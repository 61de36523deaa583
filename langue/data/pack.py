"""Batching: takes the lengths of a split's examples; returns batches of row numbers, filled to a
token budget.

The order is a function of (seed, epoch) alone, so that a resumed run, or one on another machine,
sees the same batches.
"""

import numpy as np
from numpy.typing import NDArray

from langue.errors import SettingsError
from langue.settings.sections import SHORTEST

BUCKET = 64  # number of batches that are shuffled together and then sorted by length


def shuffled_batches(
    lengths: NDArray[np.int64],
    budget: int,
    most: int,
    seed: int,
    epoch: int,
    by_length: bool = True,
) -> list[NDArray[np.int64]]:
    """Return random batches of rows, each of at most `budget` tokens and `most` examples (0: no
    limit).

    Examples are shuffled, each stretch of about `BUCKET` batches is sorted by length so that
    batches contain equal lengths, and the batches are shuffled again. by_length=False: batches do
    not depend on lengths, for losses that compare the examples of a batch.
    """
    check_budget(lengths, budget)
    random = np.random.Generator(np.random.PCG64([seed, epoch]))
    order = random.permutation(len(lengths))
    if not by_length:
        return fill(order, lengths, budget, most)
    mean = float(lengths.mean()) if len(lengths) else 1.0
    size = max(1, int(budget / max(1.0, mean)))  # approximate number of examples in a batch
    if most:
        size = min(size, most)
    stretch = BUCKET * size
    batches: list[NDArray[np.int64]] = []
    rest = order[:0]  # an incomplete batch moves to the next stretch
    for begin in range(0, len(order), stretch):
        rows = np.concatenate([rest, order[begin : begin + stretch]])
        in_order = rows[np.argsort(lengths[rows], kind="stable")]
        *full, rest = fill(in_order, lengths, budget, most)
        batches += full
    if len(rest):
        batches.append(rest)
    return [batches[i] for i in random.permutation(len(batches))]


def exact_bounds(
    lengths: NDArray[np.int64], budgets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split chunks of these lengths, in this order, into batches of exactly `budgets` tokens, the
    last one shorter.

    Returns the first chunk of each batch, with one past the last chunk at the end, and how many
    tokens of that chunk belong to the previous batch, because a boundary falls into it. budgets:
    that of each batch; the last one applies to all further batches.
    """
    ends = lengths.astype(np.int64)
    np.cumsum(ends, out=ends)  # in place, because there may be many millions
    total = int(ends[-1]) if len(ends) else 0
    last_budget = int(budgets[-1])
    uncovered = total - int(budgets.sum())
    more = max(0, -(-uncovered // last_budget))  # batches with the last budget, rounded up
    sizes = np.concatenate([budgets, np.full(more, last_budget)])
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    bounds = np.concatenate([bounds[bounds < total], [total]])
    first = np.searchsorted(ends, bounds, side="right")
    # start of the chunk that a boundary falls into
    begins = np.where(first > 0, ends[first - 1], 0)
    return first, bounds - begins


def sorted_batches(lengths: NDArray[np.int64], budget: int) -> list[NDArray[np.int64]]:
    """Return batches of all rows for evaluation and prediction, longest first, so that memory runs
    out at once or never.
    """
    check_budget(lengths, budget)
    return fill(np.argsort(-lengths, kind="stable"), lengths, budget, 0)


def fill(
    rows: NDArray[np.int64], lengths: NDArray[np.int64], budget: int, most: int
) -> list[NDArray[np.int64]]:
    """Split rows, in the given order, into batches of at most `budget` tokens and `most`
    examples.
    """
    batches: list[NDArray[np.int64]] = []
    begin = tokens = 0
    for end, length in enumerate(lengths[rows].tolist()):
        if end > begin and (tokens + length > budget or (most and end - begin == most)):
            batches.append(rows[begin:end])
            begin = end
            tokens = 0
        tokens += length
    if begin < len(rows):
        batches.append(rows[begin:])
    return batches


def check_budget(lengths: NDArray[np.int64], budget: int) -> None:
    longest = int(lengths.max()) if len(lengths) else 0
    if longest > budget:
        raise SettingsError(
            f"train.batch_tokens = {budget} is less than the longest example, {longest} tokens",
            do=f"set train.batch_tokens to at least {longest}"
            + (f", or data.max_length to at most {budget}" if budget >= SHORTEST else ""),
        )
