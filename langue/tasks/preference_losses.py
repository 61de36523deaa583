"""Losses of preferences, each of numbers of N rows. What arrives: log-probabilities of answers, by
the model and by the reference that it began as. What leaves: a loss a row (N,).

Names: `chosen` and `rejected` are summed log-probabilities of an answer's tokens (N,), `reference_`
those by the reference; `beta` is how far the model is held to the reference, or the scale of
rewards where there is none. A reward is beta (log p - log p_reference), up to a constant of the
prompt.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# that need no reference, and those of rows that are one answer and whether it is good
WITHOUT_REFERENCE = ("orpo", "simpo")
UNPAIRED = ("kto",)
LARGEST = -1e-6  # mean log-probability, at which odds are still finite


@dataclass(frozen=True)
class Answers:
    """One answer of each of N rows."""

    logs: Tensor  # (N,) summed log-probabilities of its tokens
    reference: Tensor  # (N,) the same by the reference
    tokens: Tensor  # (N,)

    @property
    def gain(self) -> Tensor:
        """(N,) log p - log p_reference."""
        return self.logs - self.reference

    @property
    def mean(self) -> Tensor:
        """(N,) mean log-probability of a token."""
        return self.logs / self.tokens


def sigmoid(chosen: Answers, rejected: Answers, beta: float, smoothing: float) -> Tensor:
    """DPO (Rafailov et al. 2023, arXiv:2305.18290, equation 7); with smoothing as the conservative
    DPO of Mitchell 2023: a label is wrong with that probability.
    """
    h = beta * (chosen.gain - rejected.gain)  # (N,)
    return -(1 - smoothing) * F.logsigmoid(h) - smoothing * F.logsigmoid(-h)


def robust(chosen: Answers, rejected: Answers, beta: float, smoothing: float) -> Tensor:
    """DPO of labels that are wrong with a known probability, without bias (Chowdhury et al. 2024,
    arXiv:2403.00409, equation 12).
    """
    h = beta * (chosen.gain - rejected.gain)  # (N,)
    right = -(1 - smoothing) * F.logsigmoid(h)
    return (right + smoothing * F.logsigmoid(-h)) / (1 - 2 * smoothing)


def hinge(chosen: Answers, rejected: Answers, beta: float) -> Tensor:
    """SLiC's margin (Zhao et al. 2023, arXiv:2305.10425), of gains as Liu et al. 2023 have it."""
    return torch.relu(1 - beta * (chosen.gain - rejected.gain))


def ipo(chosen: Answers, rejected: Answers, beta: float) -> Tensor:
    """IPO (Azar et al. 2023, arXiv:2310.12036, equation 17), of gains a token, as its authors
    confirmed for answers of unlike length.
    """
    h = chosen.gain / chosen.tokens - rejected.gain / rejected.tokens  # (N,)
    return (h - 1 / (2 * beta)) ** 2


def simpo(chosen: Answers, rejected: Answers, beta: float, gamma: float) -> Tensor:
    """SimPO (Meng et al. 2024, arXiv:2405.14734, equation 6): mean log-probabilities, a margin
    gamma.
    """
    return -F.logsigmoid(beta * (chosen.mean - rejected.mean) - gamma)


def orpo(chosen: Answers, rejected: Answers, beta: float) -> Tensor:
    """ORPO (Hong et al. 2024, arXiv:2403.07691, equations 6 and 7): the chosen answer's mean
    cross-entropy, and beta times the loss of the ratio of odds.
    """
    odds = _log_odds(chosen.mean) - _log_odds(rejected.mean)  # (N,)
    return -chosen.mean - beta * F.logsigmoid(odds)


def _log_odds(mean: Tensor) -> Tensor:
    """log p - log(1 - p), of p = exp(mean)."""
    below_one = mean.clamp(max=LARGEST)
    return mean - torch.log(-torch.expm1(below_one))


def kto(
    answers: Answers,
    mismatched: Answers,
    is_good: Tensor,
    beta: float,
    weights: tuple[float, float],
) -> Tensor:
    """KTO (Ethayarajh et al. 2024, arXiv:2402.01306, equations 7 and 8).

    mismatched: answers of other rows to these prompts, whose mean gain, or 0 where it is less,
    estimates how far the model is from the reference, and has no gradient; is_good (N,); weights:
    of good and of bad answers. trl has the same formula.
    """
    divergence = mismatched.gain.mean().clamp(min=0).detach()
    above = torch.sigmoid(beta * (answers.gain - divergence))
    good, bad = weights
    return torch.where(is_good, good * (1 - above), bad * above)
