"""Statistics of raters' votes on pairs of outputs: who wins and with what certainty, whether raters
agree, and whether the side influenced the votes.

A vote says which side was better, or neither: a tie, or both bad; each of these counts as half a
win for both. If a rater voted on an item in both orders (as a model does when it is the judge),
equal verdicts are one vote, and different ones are a tie.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from langue.statistics.intervals import RESAMPLES, Interval, wilson

LEFT = "left"
RIGHT = "right"
TIE = "tie"
BAD = "bad"
VOTES = (LEFT, RIGHT, TIE, BAD)
PRIOR = 0.1  # prior wins of each system over each other
ELO = 400 / np.log(10)  # Elo points per unit of natural logarithm
_STEPS = 5000
_PRECISE = 1e-9

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Vote:
    """A vote; left and right: the systems on these sides."""

    item: Hashable
    rater: str
    left: str
    right: str
    vote: str


@dataclass(frozen=True)
class Verdict:
    """A rater's verdict on an item and a pair, independent of sides: the better system, TIE or BAD.

    pair: in alphabetical order.
    """

    item: Hashable
    rater: str
    pair: tuple[str, str]
    winner: str


def verdicts_of(votes: Iterable[Vote]) -> tuple[list[Verdict], dict[str, tuple[int, int]]]:
    """Return one verdict for each rater, item and pair, and for each rater (agreed, of): of the
    items rated in both orders, how many have equal verdicts.

    Of two votes on the same sides, the later one counts.
    """
    last = {(vote.rater, vote.item, vote.left, vote.right): vote for vote in votes}
    orders: dict[tuple[str, Hashable, tuple[str, str]], list[str]] = {}
    for vote in last.values():
        first, second = sorted((vote.left, vote.right))
        key = (vote.rater, vote.item, (first, second))
        said = {LEFT: vote.left, RIGHT: vote.right}.get(vote.vote, vote.vote)
        orders.setdefault(key, []).append(said)
    found = []
    both: dict[str, tuple[int, int]] = {}
    for (rater, item, pair), said_ in orders.items():
        agreed = len(set(said_)) == 1
        found.append(Verdict(item, rater, pair, said_[0] if agreed else TIE))
        if len(said_) > 1:
            right, of = both.get(rater, (0, 0))
            both[rater] = (right + agreed, of + 1)
    return found, both


def report(votes: Sequence[Vote], resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Return all statistics of the votes, ready for JSON."""
    verdicts, both = verdicts_of(votes)
    systems = sorted({name for each in verdicts for name in each.pair})
    return {
        "votes": len(verdicts),
        "items": len({each.item for each in verdicts}),
        "raters": sorted({each.rater for each in verdicts}),
        "pairs": [pair_record(pair, verdicts) for pair in combinations(systems, 2)],
        "bradley_terry": ranking(verdicts, systems, resamples, seed) if len(systems) > 2 else None,
        "agreement": agreement(verdicts),
        "both_orders": {name: {"agreed": a, "of": n} for name, (a, n) in both.items()},
        "position": position(votes),
    }


def pair_record(pair: tuple[str, str], verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """Return the record of the first system of a pair against the second.

    win_rate is the share of decided votes that it won, with Wilson's interval (1927) and the exact
    p-value of no difference (the sign test); score also counts ties as half a win.
    """
    said = [each.winner for each in verdicts if each.pair == pair]
    wins = said.count(pair[0])
    losses = said.count(pair[1])
    ties = said.count(TIE)
    bad = said.count(BAD)
    decided = wins + losses
    interval = wilson(wins, decided)
    return {
        "system": pair[0],
        "against": pair[1],
        "wins": wins,
        "losses": losses,
        "ties": ties,
        "both_bad": bad,
        "win_rate": wins / decided if decided else None,
        "interval": list(interval) if interval else None,
        "p_value": even(wins, decided),
        "score": (wins + (ties + bad) / 2) / len(said) if said else None,
    }


def even(count: int, total: int) -> float:
    """Return the exact two-sided p-value of `count` out of `total` under a probability
    of a half.
    """
    if not total:
        return 1.0
    return min(1.0, 2.0 * float(bdtr(min(count, total - count), total, 0.5)))


# --- Bradley-Terry ---


def wins_of(verdicts: Iterable[Verdict], systems: Sequence[str]) -> Floats:
    """Return (K, K): how often the system of the row won against that of the column,
    ties as half.
    """
    place = {name: number for number, name in enumerate(systems)}
    wins = np.zeros((len(systems), len(systems)))
    for each in verdicts:
        first, second = (place[name] for name in each.pair)
        half = 0.5 if each.winner in (TIE, BAD) else float(each.winner == each.pair[0])
        wins[first, second] += half
        wins[second, first] += 1 - half
    return wins


def bradley_terry(wins: Floats, prior: float = PRIOR) -> Floats:
    """Return strengths (..., K) whose differences are log odds of winning (Bradley and Terry 1952),
    with mean 0, from wins (..., K, K).

    They are computed by minorisation-maximisation (Hunter 2004, equation 3). prior: additional wins
    of each system over each other, which keep the strength of a system that always won finite; 0:
    none.
    """
    count = wins.shape[-1]
    given = wins + prior * (1 - np.eye(count))
    games = given + np.swapaxes(given, -1, -2)  # (..., K, K)
    won = given.sum(-1)  # (..., K)
    strength = np.ones_like(won)
    for _ in range(_STEPS):
        together = strength[..., :, None] + strength[..., None, :]  # (..., K, K)
        new = won / (games / together).sum(-1)
        new = new / np.exp(np.log(new).mean(-1, keepdims=True))
        change = np.abs(new - strength).max()
        strength = new
        if change < _PRECISE:
            break
    logs: Floats = np.log(strength)
    return logs


def ranking(
    verdicts: Sequence[Verdict], systems: Sequence[str], resamples: int, seed: int
) -> list[dict[str, Any]]:
    """Return each system's strength in Elo points around a mean of 0, strongest first.

    The 95% interval is from a bootstrap over items, since votes on the same item are not
    independent.
    """
    by_item: dict[Hashable, list[Verdict]] = {}
    for each in verdicts:
        by_item.setdefault(each.item, []).append(each)
    wins = np.stack([wins_of(part, systems) for part in by_item.values()])  # (N, K, K)
    whole = bradley_terry(wins.sum(0)) * ELO
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(wins), np.full(len(wins), 1 / len(wins)), resamples)
    resampled = np.tensordot(drawn.astype(np.float64), wins, axes=1)  # (R, K, K)
    low, high = np.percentile(bradley_terry(resampled) * ELO, (2.5, 97.5), axis=0)
    rows = []
    for place in np.argsort(-whole, kind="stable").tolist():
        interval = [float(low[place]), float(high[place])]
        rows.append({"system": systems[place], "elo": float(whole[place]), "interval": interval})
    return rows


# --- agreement ---


def agreement(verdicts: Iterable[Verdict]) -> dict[str, Any] | None:
    """Return Cohen's kappa (1960) of each two raters and Krippendorff's alpha (2004, nominal) of
    all; None if no two raters rated the same item.
    """
    said: dict[Hashable, dict[str, str]] = {}
    for each in verdicts:
        said.setdefault((each.item, each.pair), {})[each.rater] = each.winner
    shared = [unit for unit in said.values() if len(unit) > 1]
    if not shared:
        return None
    raters = sorted({rater for unit in shared for rater in unit})
    pairs = []
    for first, second in combinations(raters, 2):
        both = [(unit[first], unit[second]) for unit in shared if first in unit and second in unit]
        if both:
            pairs.append(
                {"raters": [first, second], "items": len(both), "kappa": cohen_kappa(both)}
            )
    alpha = krippendorff_alpha([list(unit.values()) for unit in said.values()])
    return {"items": len(shared), "cohen": pairs, "krippendorff": alpha}


def cohen_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Return the agreement of two raters beyond chance; None if both always gave the same single
    verdict.
    """
    names = sorted({name for pair in pairs for name in pair})
    place = {name: number for number, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)))
    for first, second in pairs:
        counts[place[first], place[second]] += 1
    share = counts / counts.sum()
    by_chance = float(share.sum(1) @ share.sum(0))
    if by_chance >= 1:
        return None
    return (float(np.trace(share)) - by_chance) / (1 - by_chance)


def krippendorff_alpha(units: Sequence[Sequence[str]]) -> float | None:
    """Return the agreement beyond chance of any number of raters, each of whom may have rated only
    some units.

    units: the verdicts on each. None if all verdicts are equal, or no unit has two raters.
    """
    names = sorted({name for unit in units for name in unit})
    place = {name: number for number, name in enumerate(names)}
    coincidences = np.zeros((len(names), len(names)))
    for unit in units:
        if len(unit) < 2:
            continue
        counts = np.bincount([place[name] for name in unit], minlength=len(names)).astype(float)
        coincidences += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    total = coincidences.sum()
    if not total:
        return None
    margins = coincidences.sum(0)
    observed = total - np.trace(coincidences)
    expected = (total**2 - margins @ margins) / (total - 1)
    return float(1 - observed / expected) if expected else None


# --- influence of the side ---


def position(votes: Iterable[Vote]) -> dict[str, Any]:
    """Return whether the side influenced the votes: the share of the left side among all votes for
    a side as they were given, with its interval and the exact p-value of equal chances.
    """
    last = {(vote.rater, vote.item, vote.left, vote.right): vote.vote for vote in votes}
    said = list(last.values())
    left = said.count(LEFT)
    total = left + said.count(RIGHT)
    interval: Interval | None = wilson(left, total)
    return {
        "left": left,
        "of": total,
        "share": left / total if total else None,
        "interval": list(interval) if interval else None,
        "p_value": even(left, total),
    }
