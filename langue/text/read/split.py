"""What arrives: the number of rows, their labels, a share, a seed. What leaves: which rows are held
out, in file order.

The draw is a function of (rows, labels, share, seed) alone, the same in every process and on every
platform: numpy's legacy generator is the one whose stream is promised never to change.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def hold_out(
    n_rows: int, n_held: int, seed: int, classes: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(kept, held) row numbers, each ascending. classes: (n_rows,) the class of each row, whose
    shares are kept.

    A class is never held out as a whole: what is judged must have been seen. Where that leaves too
    few rows, as with a class a row, the draw ignores classes.
    """
    order = np.random.RandomState(seed % 2**32).permutation(n_rows)
    chosen = order[:n_held]
    if classes is not None:
        sizes = np.bincount(classes)
        quota = _quota(sizes, n_held)
        if quota is not None:
            # Rank of each row within its class, in the drawn order; the first `quota` of a class
            # are held out.
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
    """(kept, held) row numbers, each ascending, rows of one value together: groups in a drawn order
    as long as they fit into `n_held` rows, at least one. None where that would not leave `left`
    groups.
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
    """(n_rows,) rows in a drawn order, of which each beginning has about the shares of the classes:
    the first tenth is part of the first third.
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
    """(n_rows,) the fold of each row, from 0; the folds of each class differ by at most one row in
    size. -1: of a class of one row, which is not held out, as what is judged must have been seen.
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
    """As `divide`, rows of one value in one fold: groups from the largest to the smallest, each to
    the fold that has the fewest rows. None where there are fewer groups than folds.
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
    """The division, of rows that carry any number of labels, without held rows of a label that no
    kept row has: these stay.
    """
    sets = [_several(label) for label in labels]
    seen: set[Any] = set()
    for row in kept:
        seen |= sets[row]
    go = np.array([row for row in held if sets[row] <= seen], np.int64)
    return np.setdiff1d(np.arange(len(labels)), go), go


def firsts_of_labels(order: NDArray[np.int64], labels: Sequence[Any]) -> NDArray[np.int64]:
    """The rows, in this order, that carry a label which no row before carries."""
    seen: set[Any] = set()
    firsts = []
    for row in order:
        own = _several(labels[row])
        if own - seen:
            firsts.append(row)
            seen |= own
    return np.array(firsts, np.int64)


def _quota(sizes: NDArray[np.int64], n_held: int) -> NDArray[np.int64] | None:
    """Rows to hold out of each class: its share by largest remainder, at least one of it left;
    None: impossible.
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
    """The division, of rows that carry any number of labels, with rows exchanged until every label
    of a held row stands in a kept one too, as far as that can be.
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
    """Whether rows carry any number of labels: as lists, or, from a CSV file, with `|` between
    them.
    """
    return any(
        isinstance(label, (list, tuple)) or isinstance(label, str) and "|" in label
        for label in labels
    )


def parted(label: str) -> list[str]:
    """The labels of `a|b`; of nothing, an empty one."""
    return [part.strip() for part in label.split("|")]


def _several(label: Any) -> set[Any]:
    if isinstance(label, str):
        return {*parted(label)} - {""}
    parts = label if isinstance(label, (list, tuple)) else ()
    # those are refused later, by row
    return {part for part in parts if not isinstance(part, (list, tuple, dict))}


def class_numbers(labels: Sequence[Any]) -> NDArray[np.int64] | None:
    """(n,) numbers of labels in sorted order; None where labels are lists, real numbers, or mostly
    different.
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
