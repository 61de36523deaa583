"""What arrives: votes of raters on pairs of outputs.
What leaves: who wins, how sure that is, whether raters agree, and whether the side decided.

A vote says which side was better, or neither: a tie, or both bad, which count as half a win each.
Where a rater has voted on an item in both orders (a model as judge does), equal answers are one
vote and others a tie.
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
PRIOR = 0.1  # wins that each system is given over each other before any vote
ELO = 400 / np.log(10)  # points on the scale of chess, of a natural logarithm
_STEPS = 5000
_PRECISE = 1e-9

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Vote:
    """left, right: the systems that stood there."""

    item: Hashable
    rater: str
    left: str
    right: str
    vote: str


@dataclass(frozen=True)
class Verdict:
    """What a rater says of an item and a pair, whatever the sides: the system that is better, TIE
    or BAD. pair: in alphabetical order.
    """

    item: Hashable
    rater: str
    pair: tuple[str, str]
    winner: str


def verdicts_of(votes: Iterable[Vote]) -> tuple[list[Verdict], dict[str, tuple[int, int]]]:
    """One verdict for each rater, item and pair, and by rater of how many in both orders how many
    agree: (agreed, of). Of two votes on the same sides the later counts.
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
    """All that is said of votes, ready for JSON."""
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
    """How the first of a pair fares against the second: of the votes that decided the share that it
    won, with Wilson's interval (1927) and the exact p-value of no difference (the sign test); and
    its score, ties as half.
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
    """The exact two-sided p-value of `count` of `total` where each has a probability of a half."""
    if not total:
        return 1.0
    return min(1.0, 2.0 * float(bdtr(min(count, total - count), total, 0.5)))


# --- Bradley-Terry ---


def wins_of(verdicts: Iterable[Verdict], systems: Sequence[str]) -> Floats:
    """(K, K) how often the system of the row has won over that of the column, ties as half."""
    place = {name: number for number, name in enumerate(systems)}
    wins = np.zeros((len(systems), len(systems)))
    for each in verdicts:
        first, second = (place[name] for name in each.pair)
        half = 0.5 if each.winner in (TIE, BAD) else float(each.winner == each.pair[0])
        wins[first, second] += half
        wins[second, first] += 1 - half
    return wins


def bradley_terry(wins: Floats, prior: float = PRIOR) -> Floats:
    """(..., K) strengths whose differences are log odds of winning (Bradley and Terry 1952), their
    mean 0, of wins (..., K, K).

    By minorisation-maximisation (Hunter 2004, equation 3). prior: wins that each has over each
    other besides, which keeps the strength of a system finite that has always won; 0: none.
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
    """Each system's strength in points of Elo about a mean of 0, from the strongest, with the 95%
    interval over items drawn anew: votes on one item are not independent.
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
    """Cohen's kappa (1960) of each two raters and Krippendorff's alpha (2004, nominal) of all; None
    where no two have rated the same.
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
    """Agreement beyond chance of two raters; None where both have said one thing only."""
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
    """Agreement beyond chance of any number of raters, of whom each may have rated some units only.
    units: what was said of each. None where all have said one thing, or nobody the same as another.
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


# --- the side ---


def position(votes: Iterable[Vote]) -> dict[str, Any]:
    """Whether the side decided: the share of the left among votes for a side, over all votes as
    they were given, its interval and the exact p-value of an even chance.
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
