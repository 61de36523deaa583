"""Win rates, Bradley-Terry, agreement and position, against others' and the slow obvious way."""

import random
from itertools import combinations, product

import numpy as np
import pytest
from scipy import optimize, stats
from sklearn.metrics import cohen_kappa_score

from langue.statistics import votes as v
from langue.statistics.intervals import wilson

SAID = ("A", "B", v.TIE, v.BAD)


@pytest.mark.parametrize(("right", "total"), [(0, 7), (7, 7), (3, 10), (1, 1), (512, 1000)])
def test_wilsons_interval(right, total):
    expected = stats.binomtest(right, total).proportion_ci(method="wilson")
    assert wilson(right, total) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert v.even(right, total) == pytest.approx(stats.binomtest(right, total).pvalue)


def test_seven_to_three_is_the_log_of_the_odds():
    found = v.bradley_terry(np.array([[0.0, 7.0], [3.0, 0.0]]), prior=0)
    assert found == pytest.approx([np.log(7 / 3) / 2, -np.log(7 / 3) / 2], abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("prior", [0.0, 0.1, 2.0])
def test_bradley_terry_is_the_likeliest(seed, prior):
    """By climbing the logarithm of the likelihood itself."""
    generator = np.random.default_rng(seed)
    wins = generator.integers(1, 12, (4, 4)).astype(float)
    np.fill_diagonal(wins, 0)

    def loss(theta):
        given = wins + prior * (1 - np.eye(4))
        total = sum(
            given[i, j] * np.log1p(np.exp(theta[j] - theta[i]))
            for i, j in product(range(4), repeat=2)
        )
        return total + theta.sum() ** 2

    best = optimize.minimize(loss, np.zeros(4), tol=1e-12).x
    assert v.bradley_terry(wins, prior) == pytest.approx(best - best.mean(), abs=1e-4)


def test_choix_finds_the_same():
    choix = pytest.importorskip("choix")
    generator = np.random.default_rng(0)
    wins = generator.integers(1, 12, (5, 5))
    pairs = [
        (i, j) for i, j in product(range(5), repeat=2) if i != j for _ in range(wins[i, j])
    ]  # fmt: skip
    np.fill_diagonal(wins, 0)
    expected = choix.ilsr_pairwise(5, pairs)
    assert v.bradley_terry(wins.astype(float), 0) == pytest.approx(
        expected - expected.mean(), abs=1e-5
    )


def test_one_that_always_wins_has_a_finite_strength():
    wins = np.array([[0.0, 10.0, 10.0], [0.0, 0.0, 5.0], [0.0, 5.0, 0.0]])
    found = v.bradley_terry(wins)
    assert np.isfinite(found).all() and found[0] > 2 and found[1] == pytest.approx(found[2])
    assert v.bradley_terry(np.stack([wins, wins.T])) == pytest.approx(
        np.stack([found, v.bradley_terry(wins.T)])
    )


@pytest.mark.parametrize("seed", range(6))
def test_kappa_is_that_of_scikit_learn(seed):
    draw = random.Random(seed)
    pairs = [(draw.choice(SAID), draw.choice(SAID[: 1 + seed % 4])) for _ in range(40)]
    expected = cohen_kappa_score(*zip(*pairs, strict=True))
    assert v.cohen_kappa(pairs) == pytest.approx(expected)


def slow_alpha(units):
    """One less observed disagreement over expected, each over all pairs of values."""
    units = [unit for unit in units if len(unit) > 1]
    values = [value for unit in units for value in unit]
    n = len(values)
    observed = sum(
        sum(a != b for a, b in product(unit, repeat=2)) / (len(unit) - 1) for unit in units
    )
    expected = sum(a != b for a, b in product(values, repeat=2)) / (n - 1)
    return 1 - observed / expected


@pytest.mark.parametrize("seed", range(6))
def test_alpha_is_what_its_definition_says(seed):
    draw = random.Random(seed)
    units = [[draw.choice(SAID) for _ in range(draw.randint(1, 4))] for _ in range(25)]
    assert v.krippendorff_alpha(units) == pytest.approx(slow_alpha(units))


def test_alpha_of_the_library():
    library = pytest.importorskip("krippendorff")
    draw = random.Random(3)
    table = np.array([[draw.choice([0, 1, 2, np.nan]) for _ in range(30)] for _ in range(4)])
    units = [[str(value) for value in unit if value == value] for unit in table.T]
    expected = library.alpha(reliability_data=table, level_of_measurement="nominal")
    assert v.krippendorff_alpha(units) == pytest.approx(expected)


def test_agreement_that_is_no_question():
    assert v.cohen_kappa([("A", "A")] * 5) is None
    assert v.krippendorff_alpha([["A", "A"]] * 5) is None
    assert v.krippendorff_alpha([["A"], ["B"]]) is None
    assert v.krippendorff_alpha([["A", "A"], ["B", "B"]]) == pytest.approx(1)
    assert v.cohen_kappa([("A", "B"), ("B", "A")]) == pytest.approx(-1)


def test_both_orders_are_one_verdict_and_disagreement_a_tie():
    votes = [
        v.Vote(1, "judge", "A", "B", v.LEFT), v.Vote(1, "judge", "B", "A", v.RIGHT),
        v.Vote(2, "judge", "A", "B", v.LEFT), v.Vote(2, "judge", "B", "A", v.LEFT),
        v.Vote(3, "me", "A", "B", v.LEFT), v.Vote(3, "me", "A", "B", v.BAD),
    ]  # fmt: skip
    found, both = v.verdicts_of(votes)
    assert [each.winner for each in found] == ["A", v.TIE, v.BAD]  # the later vote counts
    assert both == {"judge": (1, 2)}
    assert v.position(votes)["left"] == 3 and v.position(votes)["of"] == 4


def test_a_rater_who_always_presses_one_key_is_found_out():
    generator = np.random.default_rng(0)
    sides = [("A", "B") if generator.random() < 0.5 else ("B", "A") for _ in range(60)]
    votes = [v.Vote(i, "me", *side, v.LEFT) for i, side in enumerate(sides)]
    found = v.report(votes)
    assert found["position"]["share"] == 1 and found["position"]["p_value"] < 1e-9
    (pair,) = found["pairs"]
    assert pair["p_value"] > 0.05
    assert pair["wins"] + pair["losses"] == 60 and found["bradley_terry"] is None


def test_more_systems_are_ranked_with_intervals_that_hold_them():
    """Of 95%: in 40 worlds of three systems, whose strengths are known."""
    strength = {"weak": -0.8, "middle": 0.0, "strong": 0.8}
    held = 0
    for seed in range(40):
        draw = random.Random(seed)
        votes = []
        for item in range(80):
            for a, b in combinations(strength, 2):
                odds = 1 / (1 + np.exp(strength[b] - strength[a]))
                vote = v.LEFT if draw.random() < odds else v.RIGHT
                votes.append(v.Vote(item, "me", a, b, vote))
        found = v.report(votes, resamples=200)
        assert [row["system"] for row in found["bradley_terry"]] == ["strong", "middle", "weak"]
        for row in found["bradley_terry"]:
            low, high = row["interval"]
            held += low < strength[row["system"]] * v.ELO < high
    assert 0.88 <= held / 120 <= 0.99
    assert len(found["pairs"]) == 3 and found["agreement"] is None
