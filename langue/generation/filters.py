"""What arrives: logits after the temperature. What leaves: which of the tokens may be drawn.

Each filter sees only the tokens that those before it have left, so that after the first one little
is to be done. They do what the ones of the same name in `transformers` do, in its order. They work
on the host, where NumPy partitions and sorts with vector instructions: it partitions 50,257 logits
in half the time that `torch.topk` takes, and sorts them in a twentieth (docs/LOG.md).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Logits = NDArray[np.float32]  # (C,) of the tokens that are left; -inf where one is forbidden
Kept = NDArray[np.bool_]
Filter = Callable[[Logits], Kept]  # (C,) which of them stay; one at least


def top_k(logits: Logits, k: int) -> Kept:
    """The k likeliest (Fan et al. 2018, arXiv:1805.04833), and what is as likely as the last."""
    if k >= len(logits):
        return np.ones(len(logits), bool)
    least = np.partition(logits, len(logits) - k)[len(logits) - k]
    keep: Kept = logits >= least
    return keep


def top_p(logits: Logits, p: float) -> Kept:
    """The smallest set that holds a share p of the probability (Holtzman et al. 2019,
    arXiv:1904.09751); of equally likely tokens at its border those with the lower ids.
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
    """Those at least so likely as `share` of the likeliest (Nguyen et al. 2024,
    arXiv:2407.01082).
    """
    keep: Kept = logits >= logits.max() + np.float32(math.log(share))
    return keep


def typical_p(logits: Logits, mass: float) -> Kept:
    """Those whose surprise -log p is nearest to the entropy, until they hold `mass` of the
    probability (Meister et al. 2022, arXiv:2202.00666).
    """
    surprise = _surprise(logits)
    probabilities = np.exp(-surprise)
    distance = np.abs(surprise - _entropy(surprise))
    near = distance[_are_enough(probabilities, mass)].max()
    places = np.flatnonzero(distance <= near)
    places = places[np.argsort(distance[places])]
    count = int(np.count_nonzero(running_sum(probabilities[places]) < mass))
    keep: Kept = distance <= distance[places[min(count, len(places) - 1)]]
    return keep


def epsilon_cutoff(logits: Logits, epsilon: float) -> Kept:
    """Those of at least probability epsilon, and the likeliest (Hewitt et al. 2022,
    arXiv:2210.15191).
    """
    keep: Kept = (softmax(logits) >= epsilon) | (logits == logits.max())
    return keep


def eta_cutoff(logits: Logits, epsilon: float) -> Kept:
    """Those of at least probability min(epsilon, sqrt(epsilon) exp(-entropy)), and the likeliest
    (Hewitt et al. 2022, arXiv:2210.15191).
    """
    surprise = _surprise(logits)
    eta = min(epsilon, math.sqrt(epsilon) * math.exp(-_entropy(surprise)))
    keep: Kept = (np.exp(-surprise) >= eta) | (logits == logits.max())
    return keep


def softmax(logits: Logits) -> Logits:
    """Probabilities (C,) of logits (C,), the highest of which is finite."""
    weights = np.exp(logits - logits.max())
    probabilities: Logits = weights / weights.sum()
    return probabilities


def _are_enough(probabilities: Logits, share: float) -> Kept:
    """Tokens that hold `share` together, so that only what may come before them need be sorted: the
    others are below half of (1 - share) / C, and hold less than 1 - share even with rounding.
    """
    keep: Kept = probabilities >= (1 - share) / (2 * len(probabilities))
    return keep


def running_sum(weights: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The sums (C,) of weights (C,) up to each place, in float64."""
    # a third of the time that NumPy's takes
    sums: NDArray[np.float64] = torch.from_numpy(weights).cumsum(0, dtype=torch.float64).numpy()
    return sums


def _surprise(logits: Logits) -> Logits:
    """-log p (C,); infinite for what is forbidden."""
    below = logits - logits.max()
    surprise: Logits = np.log(np.exp(below).sum()) - below
    return surprise


def _entropy(surprise: Logits) -> float:
    """The mean of the surprise, in nats."""
    possible = surprise[np.isfinite(surprise)]
    return float(np.dot(np.exp(-possible), possible))
