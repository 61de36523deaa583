"""Disentangled attention of DeBERTa (He et al. 2020, arXiv:2006.03654): takes queries and keys of
tokens, and of the distances between tokens; returns the scores of each token with each distance.

    A(i, j) = Q_i . K_j + Q_i . K^r(i - j) + K_j . Q^r(i - j)

This is eq. 4 except for the last term, in which the paper has the distance from the query to the
key, j - i. The published code, and thus every published model, uses i - j in both terms.

Distances are in tables of 2 S rows for at most S tokens, where row r is that of i - j = r - S.
"""

import torch
from torch import Tensor


def distance_scores(q: Tensor, k: Tensor, keys: Tensor | None, queries: Tensor | None) -> Tensor:
    """Return the distance terms for each query i and key j, unscaled: q, k (n, H, t, K) -> (n, H,
    t, t).

    keys, queries (2 S, H, K): projections of distances; None: that term does not exist.
    """
    t = q.shape[2]
    terms = []
    if keys is not None:
        own = _nearest(keys, t).flip(0).to(q.dtype)
        products = q @ own.permute(1, 2, 0)  # (n, H, t, 2 t), of i - j from t - 1 down to -t
        terms.append(along_diagonals(products, t - 1))
    if queries is not None:
        own = _nearest(queries, t).to(k.dtype)
        products = k @ own.permute(1, 2, 0)  # (n, H, t, 2 t), of i - j from -t up to t - 1
        terms.append(along_diagonals(products, t).transpose(-1, -2))
    return terms[0] if len(terms) == 1 else torch.add(*terms)


def _nearest(table: Tensor, length: int) -> Tensor:
    """Return the rows for sequences of at most `length` tokens."""
    half = len(table) // 2
    return table[half - length : half + length]


def along_diagonals(products: Tensor, first: int) -> Tensor:
    """Return a view (..., t, t) of products (..., t, 2 t), in which (a, b) is column b - a + first
    of row a.

    This is element a (2 t - 1) + b + first of the flat matrix: from `first` on, the elements as
    rows that are shorter by one (Huang et al. 2018, arXiv:1809.04281, section 3.4).
    """
    t = products.shape[-2]
    numbers = products.flatten(-2)[..., first : first + t * (2 * t - 1)]
    return numbers.view(*numbers.shape[:-1], t, 2 * t - 1)[..., :t]
