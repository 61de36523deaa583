"""What arrives: the lengths of a split's examples. What leaves: batches of row numbers, filled to a
token budget.

The order is a function of (seed, epoch) alone: a resumed run, or a run on another machine, sees the
same batches.
"""

import numpy as np
from numpy.typing import NDArray

from langue.errors import SettingsError
from langue.settings.sections import SHORTEST

BUCKET = 64  # batches that are shuffled together before being sorted by length


def shuffled_batches(
    lengths: NDArray[np.int64],
    budget: int,
    most: int,
    seed: int,
    epoch: int,
    by_length: bool = True,
) -> list[NDArray[np.int64]]:
    """Random batches of rows; each at most `budget` tokens and `most` examples (0: no limit).

    Examples are shuffled, each stretch of about `BUCKET` batches is sorted by length so that equal
    lengths meet in one batch, and the batches are shuffled again. by_length=False: which examples
    meet does not depend on their lengths, for losses that compare those of a batch.
    """
    check_budget(lengths, budget)
    random = np.random.Generator(np.random.PCG64([seed, epoch]))
    order = random.permutation(len(lengths))
    if not by_length:
        return fill(order, lengths, budget, most)
    mean = float(lengths.mean()) if len(lengths) else 1.0
    size = max(1, int(budget / max(1.0, mean)))  # examples of a batch, about
    if most:
        size = min(size, most)
    stretch = BUCKET * size
    batches: list[NDArray[np.int64]] = []
    rest = order[:0]  # what did not fill a batch goes on to the next stretch
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
    """Cut chunks of these lengths, in this order, into batches of exactly `budgets` tokens, the
    last one shorter.

    Returns the chunk that each batch begins with, one beyond the chunks after the last batch, and
    how many of that chunk's tokens are in the batch before, a boundary falling into it. budgets:
    that of each batch; the last one holds for all that follow.
    """
    ends = lengths.astype(np.int64)
    np.cumsum(ends, out=ends)  # in its place: there may be many millions
    total = int(ends[-1]) if len(ends) else 0
    last_budget = int(budgets[-1])
    uncovered = total - int(budgets.sum())
    more = max(0, -(-uncovered // last_budget))  # batches of the last size, rounded up
    sizes = np.concatenate([budgets, np.full(more, last_budget)])
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    bounds = np.concatenate([bounds[bounds < total], [total]])
    first = np.searchsorted(ends, bounds, side="right")
    begins = np.where(first > 0, ends[first - 1], 0)  # of the chunk that a boundary falls into
    return first, bounds - begins


def sorted_batches(lengths: NDArray[np.int64], budget: int) -> list[NDArray[np.int64]]:
    """All rows, longest first (so that memory runs out at once or never), for evaluation and
    prediction.
    """
    check_budget(lengths, budget)
    return fill(np.argsort(-lengths, kind="stable"), lengths, budget, 0)


def fill(
    rows: NDArray[np.int64], lengths: NDArray[np.int64], budget: int, most: int
) -> list[NDArray[np.int64]]:
    """Cut rows, in the order given, into batches of at most `budget` tokens and `most` examples."""
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
