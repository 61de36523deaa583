"""What arrives: queries and keys of tokens, and those of the distances between tokens. What leaves:
the scores of each token with each distance, DeBERTa's disentangled attention (He et al. 2020,
arXiv:2006.03654).

    A(i, j) = Q_i . K_j + Q_i . K^r(i - j) + K_j . Q^r(i - j)

is eq. 4 but for the last term, where the paper has the distance of the key from the query, j - i.
The published code, and so every published model, has that of the query from the key in both.

Distances are in tables of 2 S rows, of which row r is that of i - j = r - S, for at most S tokens.
"""

import torch
from torch import Tensor


def distance_scores(q: Tensor, k: Tensor, keys: Tensor | None, queries: Tensor | None) -> Tensor:
    """The terms with distances of each query i and key j, not scaled: q, k (n, H, t, K) ->
    (n, H, t, t). keys, queries (2 S, H, K): of distances; None: there is no such term.
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
    """The rows of sequences of at most so many tokens."""
    half = len(table) // 2
    return table[half - length : half + length]


def along_diagonals(products: Tensor, first: int) -> Tensor:
    """A view (..., t, t) of products (..., t, 2 t): at (a, b) is row a's column b - a + first.

    That is the number at a (2 t - 1) + b + first: from `first` on, the numbers in rows that are
    shorter by one (Huang et al. 2018, arXiv:1809.04281, section 3.4).
    """
    t = products.shape[-2]
    numbers = products.flatten(-2)[..., first : first + t * (2 * t - 1)]
    return numbers.view(*numbers.shape[:-1], t, 2 * t - 1)[..., :t]
