"""Selects the rows to hold out, given the number of rows, their labels, a share and a seed.

The selection, in file order, depends on (rows, labels, share, seed) alone, and is the same in every
process and on every platform: the stream of numpy's legacy generator is guaranteed never to change.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def hold_out(
    n_rows: int, n_held: int, seed: int, classes: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the (kept, held) row numbers, each ascending.

    classes: (n_rows,) the class of each row, to stratify by. A class is never held out as a whole,
    since every evaluated class must have been seen in training. If that leaves too few rows, e.g.
    with a different class for each row, classes are ignored.
    """
    order = np.random.RandomState(seed % 2**32).permutation(n_rows)
    chosen = order[:n_held]
    if classes is not None:
        sizes = np.bincount(classes)
        quota = _quota(sizes, n_held)
        if quota is not None:
            # Rank of each row within its class, in the drawn order; the first `quota` rows of a
            # class are held out.
            drawn = classes[order]
            by_class = np.argsort(drawn, kind="stable")
            rank = np.empty(n_rows, np.int64)
            rank[by_class] = np.arange(n_rows) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            chosen = order[rank < quota[drawn]]
    held = np.zeros(n_rows, bool)
    held[chosen] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def hold_out_groups(
    values: Sequence[Any], n_held: int, seed: int, left: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return the (kept, held) row numbers, each ascending, with rows of the same value together;
    None if fewer than `left` groups would remain.

    Groups are held out in random order as long as they fit into `n_held` rows, but at least one.
    """
    known = {value: number for number, value in enumerate(dict.fromkeys(values))}
    if len(known) <= left:
        return None
    groups = np.fromiter((known[value] for value in values), np.int64, len(values))
    order = np.random.RandomState(seed % 2**32).permutation(len(known))
    filled = np.cumsum(np.bincount(groups)[order])
    count = min(max(1, int((filled <= n_held).sum())), len(known) - left)
    held = np.isin(groups, order[:count])
    return np.flatnonzero(~held), np.flatnonzero(held)


def nested_order(n_rows: int, seed: int, classes: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Return a random order of the rows (n_rows,) of which every prefix is approximately
    stratified.

    The first tenth is thus a subset of the first third.
    """
    order = np.random.RandomState(seed % 2**32).permutation(n_rows)
    if classes is None:
        return order
    drawn = classes[order]
    sizes = np.bincount(classes)
    by_class = np.argsort(drawn, kind="stable")
    rank = np.empty(n_rows, np.int64)
    rank[by_class] = np.arange(n_rows) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = (rank + 0.5) / sizes[drawn]
    return order[np.argsort(place, kind="stable")]


def divide(
    n_rows: int, folds: int, seed: int, classes: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Return the fold of each row (n_rows,), from 0; the folds of a class differ by at most one row
    in size.

    The only row of a class has fold -1: it is not held out, since every evaluated class must have
    been seen in training.
    """
    order = np.random.RandomState(seed % 2**32).permutation(n_rows)
    if classes is not None:
        order = order[np.argsort(classes[order], kind="stable")]
    fold_of = np.empty(n_rows, np.int64)
    fold_of[order] = np.arange(n_rows) % folds
    if classes is not None:
        fold_of[np.bincount(classes)[classes] == 1] = -1
    return fold_of


def divide_groups(values: Sequence[Any], folds: int, seed: int) -> NDArray[np.int64] | None:
    """Do the same as `divide`, with rows of the same value in one fold; None if there are fewer
    groups than folds.

    Groups are assigned from the largest to the smallest, each to the fold with the fewest rows.
    """
    known = {value: number for number, value in enumerate(dict.fromkeys(values))}
    if len(known) < folds:
        return None
    groups = np.fromiter((known[value] for value in values), np.int64, len(values))
    sizes = np.bincount(groups)
    drawn = np.random.RandomState(seed % 2**32).permutation(len(known))
    filled = np.zeros(folds, np.int64)
    fold_of_group = np.empty(len(known), np.int64)
    for group in drawn[np.argsort(-sizes[drawn], kind="stable")]:
        fold = int(filled.argmin())
        fold_of_group[group] = fold
        filled[fold] += sizes[group]
    return fold_of_group[groups]


def with_seen_labels(
    kept: NDArray[np.int64], held: NDArray[np.int64], labels: Sequence[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Move held rows of multi-label data that have a label which no kept row has back to the kept
    rows.
    """
    sets = [_several(label) for label in labels]
    seen: set[Any] = set()
    for row in kept:
        seen |= sets[row]
    go = np.array([row for row in held if sets[row] <= seen], np.int64)
    return np.setdiff1d(np.arange(len(labels)), go), go


def firsts_of_labels(order: NDArray[np.int64], labels: Sequence[Any]) -> NDArray[np.int64]:
    """Return the rows, in this order, that have a label which no earlier row has."""
    seen: set[Any] = set()
    firsts = []
    for row in order:
        own = _several(labels[row])
        if own - seen:
            firsts.append(row)
            seen |= own
    return np.array(firsts, np.int64)


def _quota(sizes: NDArray[np.int64], n_held: int) -> NDArray[np.int64] | None:
    """Return the number of rows to hold out of each class by the largest remainder method, with at
    least one left; None if that is impossible.
    """
    room = np.maximum(sizes - 1, 0)
    if room.sum() < n_held:
        return None
    exact = sizes * n_held / sizes.sum()
    quota: NDArray[np.int64] = np.minimum(np.floor(exact).astype(np.int64), room)
    by_remainder = np.argsort(quota - exact, kind="stable")
    while (left := n_held - int(quota.sum())) > 0:
        open_ = by_remainder[quota[by_remainder] < room[by_remainder]][:left]
        quota[open_] += 1
    return quota


def all_seen(
    kept: NDArray[np.int64], held: NDArray[np.int64], labels: Sequence[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Exchange rows of multi-label data until every label of a held row also occurs in a kept one,
    as far as possible.
    """
    sets = [_several(label) for label in labels]
    counts = Counter(label for row in kept for label in sets[row])
    stay = list(kept)
    go = []
    for row in held:
        if all(counts[label] for label in sets[row]):
            go.append(row)
            continue
        counts.update(sets[row])
        stay.append(row)
        spare = next(
            (other for other in stay[:-1] if all(counts[label] > 1 for label in sets[other])), None
        )
        if spare is not None:
            counts.subtract(sets[spare])
            stay.remove(spare)
            go.append(spare)
    if not go:
        return kept, held
    return np.array(sorted(stay), np.int64), np.array(sorted(go), np.int64)


def are_several(labels: Sequence[Any]) -> bool:
    """Return whether rows have any number of labels: as lists or, from a CSV file, separated by
    `|`.
    """
    return any(
        isinstance(label, (list, tuple)) or isinstance(label, str) and "|" in label
        for label in labels
    )


def parted(label: str) -> list[str]:
    """Split `a|b` into its labels; an empty string has one empty label."""
    return [part.strip() for part in label.split("|")]


def _several(label: Any) -> set[Any]:
    if isinstance(label, str):
        return {*parted(label)} - {""}
    parts = label if isinstance(label, (list, tuple)) else ()
    # these are rejected later, with their row
    return {part for part in parts if not isinstance(part, (list, tuple, dict))}


def class_numbers(labels: Sequence[Any]) -> NDArray[np.int64] | None:
    """Return the numbers of labels in sorted order, (n,); None if labels are lists, real numbers,
    or mostly distinct.
    """
    if any(isinstance(label, (list, tuple, dict)) for label in labels):
        return None
    if any(isinstance(label, float) and not label.is_integer() for label in labels):
        return None
    names = [str(label) for label in labels]
    known = {name: number for number, name in enumerate(sorted(set(names)))}
    if len(known) < 2 or 2 * len(known) > len(names):
        return None
    return np.fromiter((known[name] for name in names), np.int64, len(names))
