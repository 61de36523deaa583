"""Evaluation of preferences: takes the rewards that a model gives to answers; returns how often the
better answer has the larger reward, tables for the report, and a baseline that only looks at answer
lengths.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from langue.statistics.metrics import Measure
from langue.tasks import judgement
from langue.tasks.preference_rows import Preferred, text_of

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rewarded:
    """The rewards of a row's answers.

    rejected: NaN if the row has a single answer. reference: the log-probability of the chosen
    answer minus that of the rejected one under the reference model; NaN: unknown.
    """

    chosen: float
    rejected: float
    good: bool | None = None
    reference: float = np.nan
    is_reward: bool = True  # False: numbers that only express which answer is preferred


def measure_of_rewards(predictions: Sequence[Rewarded]) -> Measure:
    """Return the measure of accuracy (a tie counts as half) and of the margin, the reward of the
    chosen answer minus that of the rejected one.
    """
    chosen = np.asarray([each.chosen for each in predictions], np.float64)  # (N,)
    rejected = np.asarray([each.rejected for each in predictions], np.float64)
    known = np.asarray([each.is_reward for each in predictions])
    if any(each.good is not None for each in predictions):
        good = np.asarray([each.good is not False for each in predictions])
        right = np.where(good, chosen > 0, chosen < 0) + 0.5 * (chosen == 0)
        return _unpaired(right, np.where(known, chosen, np.nan), good)
    ahead = chosen - rejected
    right = (ahead > 0) + 0.5 * (ahead == 0)
    ahead = np.where(known, ahead, np.nan)

    def measure(weights: Floats) -> dict[str, Floats]:
        count = weights.sum(axis=0)  # (R,)
        return {"accuracy": right @ weights / count, "margin": ahead @ weights / count}

    return measure


def _unpaired(right: Floats, rewards: Floats, good: NDArray[np.bool_]) -> Measure:
    """Return the measure for single answers, where the margin is the mean reward of good answers
    minus that of bad ones.
    """

    def measure(weights: Floats) -> dict[str, Floats]:
        means = []
        with np.errstate(invalid="ignore", divide="ignore"):
            for which in (good, ~good):
                part = weights[which]  # (n, R)
                means.append(rewards[which] @ part / part.sum(axis=0))
        margin = means[0] - means[1]
        return {"accuracy": right @ weights / weights.sum(axis=0), "margin": margin}

    return measure


def table_of_rewards(
    predictions: Sequence[Rewarded],
) -> tuple[judgement.Table, dict[str, float]]:
    """Return a table of the mean rewards of chosen and rejected answers and, if known, of how often
    the reference model preferred the chosen one; and the same values by name.
    """
    chosen = float(np.mean([each.chosen for each in predictions]))
    rejected = float(np.mean([each.rejected for each in predictions]))
    rows: list[list[judgement.Cell]] = [
        ["reward of the chosen answer", chosen],
        ["reward of the rejected one", rejected],
    ]
    settled = {"reward_chosen": chosen, "reward_rejected": rejected}
    ahead = np.asarray([each.reference for each in predictions])
    if not np.isnan(ahead).any():
        before = float(np.mean((ahead > 0) + 0.5 * (ahead == 0)))
        rows.append(["share that was likelier to begin with", before])
        settled["reference_accuracy"] = before
    return judgement.Table(title="Rewards", columns=("", "mean"), rows=rows), settled


def furthest_from_preference(
    golds: Sequence[Preferred], predictions: Sequence[Rewarded], limit: int
) -> judgement.Examples:
    """Return the rows in which the rejected answer has the largest lead."""
    ahead = np.asarray([each.chosen - each.rejected for each in predictions])
    order = np.argsort(ahead, kind="stable")
    rows = []
    for row in order[ahead[order] < 0][:limit].tolist():
        gold = golds[row]
        passage = judgement.Passage(text_of(gold.prompt) or "(nothing)")
        cells = (text_of(gold.chosen), text_of(gold.rejected), float(ahead[row]))
        rows.append(judgement.Example([passage], cells))
    return judgement.Examples(
        title="Furthest from the preference",
        columns=("chosen", "rejected", "margin"),
        rows=rows,
        texts_are="prompt",
    )


# --- baselines ---


def _by_length(sign: float, gold: Preferred) -> Rewarded:
    lengths = len(text_of(gold.chosen)), len(text_of(gold.rejected))
    return Rewarded(sign * lengths[0], sign * lengths[1], is_reward=False)


def _always(sign: float, gold: Preferred) -> Rewarded:
    return Rewarded(sign, np.nan, gold.good, is_reward=False)


Guess = Callable[[Preferred], Rewarded]
BY_LENGTH: Mapping[str, Guess] = {
    "the longer answer": partial(_by_length, 1.0),
    "the shorter answer": partial(_by_length, -1.0),
}
ALWAYS: Mapping[str, Guess] = {
    "all are good": partial(_always, 1.0),
    "all are bad": partial(_always, -1.0),
}
