"""Sampling filters: take logits after the temperature; return which of the tokens may be sampled.

Each filter only sees the tokens that the previous ones have kept, so that little is left to do
after the first. They match the filters of the same name in `transformers`, in its order. They run
on the host, where NumPy partitions and sorts with vector instructions: it partitions 50,257 logits
in half the time of `torch.topk`, and sorts them in a twentieth (docs/LOG.md).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Logits = NDArray[np.float32]  # (C,) of the remaining tokens; -inf: forbidden
Kept = NDArray[np.bool_]
Filter = Callable[[Logits], Kept]  # (C,) -> which ones to keep; at least one


def top_k(logits: Logits, k: int) -> Kept:
    """Keep the k most probable tokens (Fan et al. 2018, arXiv:1805.04833), and ties with the last
    of them.
    """
    if k >= len(logits):
        return np.ones(len(logits), bool)
    least = np.partition(logits, len(logits) - k)[len(logits) - k]
    keep: Kept = logits >= least
    return keep


def top_p(logits: Logits, p: float) -> Kept:
    """Keep the smallest set with a total probability of p (Holtzman et al. 2019, arXiv:1904.09751);
    of ties at its border, the tokens with the lower ids.
    """
    probabilities = softmax(logits)
    ordered = -np.sort(-probabilities[_are_enough(probabilities, p)])
    before = running_sum(ordered) - ordered
    count = int(np.count_nonzero(before < p))  # the token that crosses p stays
    least = ordered[count - 1]
    keep: Kept = probabilities >= least
    excess = int(np.count_nonzero(keep)) - count
    if excess:
        ties = np.flatnonzero(probabilities == least)
        keep[ties[len(ties) - excess :]] = False
    return keep


def min_p(logits: Logits, share: float) -> Kept:
    """Keep tokens with at least `share` times the highest probability (Nguyen et al. 2024,
    arXiv:2407.01082).
    """
    keep: Kept = logits >= logits.max() + np.float32(math.log(share))
    return keep


def typical_p(logits: Logits, mass: float) -> Kept:
    """Keep the tokens whose surprisal -log p is nearest to the entropy, up to a total probability
    of `mass` (Meister et al. 2022, arXiv:2202.00666).
    """
    surprise = _surprisal(logits)
    probabilities = np.exp(-surprise)
    distance = np.abs(surprise - _entropy(surprise))
    near = distance[_are_enough(probabilities, mass)].max()
    places = np.flatnonzero(distance <= near)
    places = places[np.argsort(distance[places])]
    count = int(np.count_nonzero(running_sum(probabilities[places]) < mass))
    keep: Kept = distance <= distance[places[min(count, len(places) - 1)]]
    return keep


def epsilon_cutoff(logits: Logits, epsilon: float) -> Kept:
    """Keep tokens with a probability of at least epsilon, and the most probable one (Hewitt et al.
    2022, arXiv:2210.15191).
    """
    keep: Kept = (softmax(logits) >= epsilon) | (logits == logits.max())
    return keep


def eta_cutoff(logits: Logits, epsilon: float) -> Kept:
    """Keep tokens with a probability of at least min(epsilon, sqrt(epsilon) exp(-entropy)), and the
    most probable one (Hewitt et al. 2022, arXiv:2210.15191).
    """
    surprise = _surprisal(logits)
    eta = min(epsilon, math.sqrt(epsilon) * math.exp(-_entropy(surprise)))
    keep: Kept = (np.exp(-surprise) >= eta) | (logits == logits.max())
    return keep


def softmax(logits: Logits) -> Logits:
    """Return probabilities (C,) from logits (C,), of which the highest is finite."""
    weights = np.exp(logits - logits.max())
    probabilities: Logits = weights / weights.sum()
    return probabilities


def _are_enough(probabilities: Logits, share: float) -> Kept:
    """Return tokens that hold at least `share` of the probability, so that only these have to be
    sorted.

    Each of the others is below half of (1 - share) / C, so that together they hold less than 1 -
    share even with rounding errors.
    """
    keep: Kept = probabilities >= (1 - share) / (2 * len(probabilities))
    return keep


def running_sum(weights: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the cumulative sums (C,) of weights (C,), in float64."""
    # takes a third of the time of NumPy's cumsum
    sums: NDArray[np.float64] = torch.from_numpy(weights).cumsum(0, dtype=torch.float64).numpy()
    return sums


def _surprisal(logits: Logits) -> Logits:
    """Return the surprisal -log p (C,); infinite for forbidden tokens."""
    below = logits - logits.max()
    surprise: Logits = np.log(np.exp(below).sum()) - below
    return surprise


def _entropy(surprise: Logits) -> float:
    """Return the entropy in nats, the mean surprisal."""
    possible = surprise[np.isfinite(surprise)]
    return float(np.dot(np.exp(-possible), possible))
