"""Losses for preferences: take log-probabilities of answers under the model and the reference;
return the loss of each row (N,).

Notation: beta is the strength of the constraint to the reference, or the scale of the rewards if
there is no reference. A reward is beta (log p - log p_reference), up to a constant of the prompt.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# losses that need no reference, and losses of rows with a single good or bad answer
WITHOUT_REFERENCE = ("orpo", "simpo")
UNPAIRED = ("kto",)
LARGEST = -1e-6  # largest mean log-probability, at which the odds are still finite


@dataclass(frozen=True)
class Answers:
    """One answer of each of N rows."""

    logs: Tensor  # (N,) summed log-probabilities of the answer's tokens
    reference: Tensor  # (N,) the same under the reference
    tokens: Tensor  # (N,) number of the answer's tokens

    @property
    def gain(self) -> Tensor:
        """(N,) log p - log p_reference."""
        return self.logs - self.reference

    @property
    def mean(self) -> Tensor:
        """(N,) mean log-probability of a token."""
        return self.logs / self.tokens


def sigmoid(chosen: Answers, rejected: Answers, beta: float, smoothing: float) -> Tensor:
    """Return DPO's loss (Rafailov et al. 2023, arXiv:2305.18290, equation 7); smoothing: the
    probability that a label is wrong (conservative DPO, Mitchell 2023).
    """
    h = beta * (chosen.gain - rejected.gain)  # (N,)
    return -(1 - smoothing) * F.logsigmoid(h) - smoothing * F.logsigmoid(-h)


def robust(chosen: Answers, rejected: Answers, beta: float, smoothing: float) -> Tensor:
    """Return the unbiased DPO loss for labels that are wrong with a known probability (Chowdhury et
    al. 2024, arXiv:2403.00409, equation 12).
    """
    h = beta * (chosen.gain - rejected.gain)  # (N,)
    right = -(1 - smoothing) * F.logsigmoid(h)
    return (right + smoothing * F.logsigmoid(-h)) / (1 - 2 * smoothing)


def hinge(chosen: Answers, rejected: Answers, beta: float) -> Tensor:
    """Return SLiC's hinge loss (Zhao et al. 2023, arXiv:2305.10425), on gains as in Liu et al.
    2023.
    """
    return torch.relu(1 - beta * (chosen.gain - rejected.gain))


def ipo(chosen: Answers, rejected: Answers, beta: float) -> Tensor:
    """Return IPO's loss (Azar et al. 2023, arXiv:2310.12036, equation 17) on gains per token, which
    its authors confirmed for answers of different lengths.
    """
    h = chosen.gain / chosen.tokens - rejected.gain / rejected.tokens  # (N,)
    return (h - 1 / (2 * beta)) ** 2


def simpo(chosen: Answers, rejected: Answers, beta: float, gamma: float) -> Tensor:
    """Return SimPO's loss (Meng et al. 2024, arXiv:2405.14734, equation 6): mean log-probabilities
    with a margin gamma.
    """
    return -F.logsigmoid(beta * (chosen.mean - rejected.mean) - gamma)


def orpo(chosen: Answers, rejected: Answers, beta: float) -> Tensor:
    """Return ORPO's loss (Hong et al. 2024, arXiv:2403.07691, equations 6 and 7): the chosen
    answer's mean cross-entropy plus beta times the log-odds-ratio loss.
    """
    odds = _log_odds(chosen.mean) - _log_odds(rejected.mean)  # (N,)
    return -chosen.mean - beta * F.logsigmoid(odds)


def _log_odds(mean: Tensor) -> Tensor:
    """Return log p - log(1 - p) for p = exp(mean)."""
    below_one = mean.clamp(max=LARGEST)
    return mean - torch.log(-torch.expm1(below_one))


def kto(
    answers: Answers,
    mismatched: Answers,
    is_good: Tensor,
    beta: float,
    weights: tuple[float, float],
) -> Tensor:
    """Return KTO's loss (Ethayarajh et al. 2024, arXiv:2402.01306, equations 7 and 8).

    mismatched: answers of other rows to the same prompts; their mean gain, clamped at 0, estimates
    the KL divergence from the reference and has no gradient. is_good (N,). weights: of good and of
    bad answers. trl uses the same formula.
    """
    divergence = mismatched.gain.mean().clamp(min=0).detach()
    above = torch.sigmoid(beta * (answers.gain - divergence))
    good, bad = weights
    return torch.where(is_good, good * (1 - above), bad * above)
