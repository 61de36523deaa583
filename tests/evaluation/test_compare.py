"""The comparison with the baseline: it takes equal systems for different in at most 5% of cases,
and finds better ones.

The systems are drawn, so that which is better is known. A share of wrong verdicts counts as above
5% where so many of them would come of 5% once in a thousand times.
"""

import numpy as np
import pytest
from scipy.stats import binom, binomtest, permutation_test, spearmanr

from langue.statistics.compare import compare_documents, mcnemar, outcome
from tests.judging import compare

RESAMPLES = 200
SIMULATIONS = {25: 300, 300: 100}  # by the number of examples


def answers(generator, truth, right, n_labels):
    """One-hot answers (N, C), each right with that probability, else another label by chance."""
    other = (truth + generator.integers(1, n_labels, len(truth))) % n_labels
    return np.eye(n_labels)[np.where(generator.random(len(truth)) < right, truth, other)]


def classifiers(generator, n, first, second, metric, n_labels=2):
    shares = [0.3, 0.7] if n_labels == 2 else np.full(n_labels, 1 / n_labels)
    truth = generator.choice(n_labels, n, p=shares)
    systems = (answers(generator, truth, right, n_labels) for right in (first, second))
    return compare("classify", truth, *systems, metric, n_labels=n_labels, resamples=RESAMPLES)


def taggers(generator, n, first, second, metric):
    truth = (generator.random((n, 4)) < [0.1, 0.2, 0.4, 0.5]).astype(int)
    systems = (
        np.where(generator.random((n, 4)) < right, truth, 1 - truth) for right in (first, second)
    )
    return compare(
        "multilabel", truth, *(each.astype(float) for each in systems), metric, resamples=RESAMPLES
    )


def regressors(generator, n, first, second, metric):
    """The second on another scale, but where errors are compared, which have the scale of the
    scores."""
    truth = generator.normal(size=n)
    ours, theirs = (truth + spread * generator.normal(size=n) for spread in (first, second))
    theirs = theirs if metric == "mse" else 10 + 3 * theirs
    return compare("regress", truth, ours, theirs, metric, resamples=RESAMPLES)


def language_models(generator, n, first, second, metric):
    """Losses of documents of very different lengths, some harder than others for both models."""
    counts = generator.integers(5, 300, n)
    hard = generator.lognormal(1.0, 0.3, n)
    ours, theirs = (
        (counts * hard * loss * generator.lognormal(0.0, 0.1, n), counts)
        for loss in (first, second)
    )
    return compare_documents(ours, theirs, resamples=RESAMPLES)


CASES = [  # how they are drawn, the metric, one quality, and a better one that 300 examples show
    (classifiers, "accuracy", 0.7, 0.82),
    (classifiers, "f1_macro", 0.7, 0.82),
    (lambda *given: classifiers(*given, n_labels=5), "f1_macro", 0.7, 0.82),
    (taggers, "f1_micro", 0.8, 0.86),
    (taggers, "hamming_loss", 0.8, 0.86),
    (regressors, "spearman", 1.0, 0.6),
    (regressors, "mse", 1.0, 0.7),
    (language_models, "loss", 1.0, 0.95),
]


@pytest.mark.parametrize("n", [25, 300])
@pytest.mark.parametrize(("draw", "metric", "usual", "better"), CASES)
def test_equal_systems_are_seldom_told_apart(draw, metric, usual, better, n):
    """Of two 70% classifiers, 16.8% were, as long as the baseline's score was taken as exact."""
    generator = np.random.default_rng(0)
    found = [draw(generator, n, usual, usual, metric) for _ in range(SIMULATIONS[n])]
    false = sum(outcome(each.as_json()) != "same" for each in found)
    assert false <= binom.isf(0.001, SIMULATIONS[n], 0.05)


@pytest.mark.parametrize(("draw", "metric", "usual", "better"), CASES)
def test_a_better_system_is_found(draw, metric, usual, better):
    generator = np.random.default_rng(1)
    outcomes = [outcome(draw(generator, 300, better, usual, metric).as_json()) for _ in range(20)]
    assert outcomes.count("better") >= 16 and "worse" not in outcomes
    assert outcome(draw(generator, 300, usual, better, metric).as_json()) == "worse"


def test_equal_scores_of_another_kind_are_seldom_told_apart():
    """Systems with one accuracy, or one F1, that err on different labels: exchanged, their answers
    would be of neither kind, which the randomisation alone does not stand."""
    generator = np.random.default_rng(2)
    false = 0
    for _ in range(200):
        truth = generator.choice(2, 200)
        careful = np.where(truth == 1, generator.random(200) < 0.6, generator.random(200) < 0.1)
        bold = np.where(truth == 1, generator.random(200) < 0.9, generator.random(200) < 0.4)
        systems = (np.eye(2)[each.astype(int)] for each in (careful, bold))
        found = compare("classify", truth, *systems, "accuracy", n_labels=2, resamples=100)
        false += outcome(found.as_json()) != "same"
    assert false <= binom.isf(0.001, 200, 0.05)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (6, 0), (5, 1), (30, 12), (7, 7)])
def test_mcnemar_is_the_sign_test_of_what_one_alone_has_right(first, second):
    ours = np.array([True] * first + [False] * second + [True] * 9)
    theirs = np.array([False] * first + [True] * second + [True] * 9)
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(ours, theirs) == pytest.approx(expected, abs=1e-12)


def test_the_randomisation_is_scipys():
    """Few enough examples for SciPy to go through all exchanges."""
    generator = np.random.default_rng(3)
    truth = generator.normal(size=11)
    ours = truth + 0.5 * generator.normal(size=11)
    theirs = truth + generator.normal(size=11)

    def gain(first, second):
        return ((truth - first) ** 2).mean() - ((truth - second) ** 2).mean()

    exact = permutation_test((ours, theirs), gain, permutation_type="samples", n_resamples=np.inf)
    found = compare("regress", truth, ours, theirs, "mse", resamples=20_000)
    assert found.difference == pytest.approx(gain(ours, theirs))
    assert found.p_value == pytest.approx(exact.pvalue, abs=0.012)


def test_what_a_correlation_does_not_see_changes_nothing():
    generator = np.random.default_rng(4)
    truth = generator.normal(size=80)
    ours = truth + generator.normal(size=80)
    theirs = truth + generator.normal(size=80)
    found = compare("regress", truth, ours, theirs, "spearman")
    again = compare("regress", np.exp(truth), 100 * ours - 7, np.exp(theirs), "spearman")
    assert (found.difference, found.p_value) == pytest.approx(
        (again.difference, again.p_value), abs=1e-9
    )
    assert found.interval == pytest.approx(again.interval, abs=1e-9)
    difference = spearmanr(truth, ours).statistic - spearmanr(truth, theirs).statistic
    assert found.difference == pytest.approx(difference)


def test_examples_of_one_kind_are_taken_together_and_nothing_changes():
    """The interval and p-value of f1_macro, beside those of a plain loop over examples."""
    generator = np.random.default_rng(5)
    truth = generator.choice(3, 60)
    ours, theirs = (answers(generator, truth, right, 3).argmax(axis=1) for right in (0.8, 0.6))

    def f1_macro(true, said):
        hits = [((true == k) & (said == k)).sum() for k in range(3)]
        sizes = [(true == k).sum() + (said == k).sum() for k in range(3)]
        return np.mean([2 * h / s for h, s in zip(hits, sizes, strict=True) if s])

    plain = f1_macro(truth, ours) - f1_macro(truth, theirs)
    drawn = []
    large = 1
    for _ in range(2000):
        rows = generator.integers(0, 60, 60)
        drawn.append(f1_macro(truth[rows], ours[rows]) - f1_macro(truth[rows], theirs[rows]))
        swap = generator.random(60) < 0.5
        first = np.where(swap, theirs, ours)
        second = np.where(swap, ours, theirs)
        large += abs(f1_macro(truth, first) - f1_macro(truth, second)) >= abs(plain) - 1e-12
    found = compare(
        "classify",
        truth,
        np.eye(3)[ours],
        np.eye(3)[theirs],
        "f1_macro",
        n_labels=3,
        resamples=4000,
    )
    assert found.difference == pytest.approx(plain) and found.examples == 60
    assert found.interval == pytest.approx(np.percentile(drawn, (2.5, 97.5)), abs=0.02)
    assert found.p_value == pytest.approx(large / 2001, abs=0.02)


def test_what_is_undefined_is_not_compared():
    assert compare("regress", [1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [2.0, 2.0, 2.0], "spearman") is None
    same = compare("classify", [0, 1], np.eye(2), np.eye(2), "accuracy", n_labels=2)
    assert (same.difference, same.interval, same.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_confidence_is_compared_too():
    generator = np.random.default_rng(6)
    truth = generator.choice(2, 300)
    right = generator.random(300) < 0.8
    said = np.where(right, truth, 1 - truth)
    honest, sure = (
        np.where(np.eye(2)[said] == 1, confidence, 1 - confidence) for confidence in (0.8, 0.99)
    )
    found = [
        compare("classify", truth, *pair, "calibration_error", n_labels=2, resamples=100).as_json()
        for pair in ((honest, sure), (sure, honest), (sure, sure))
    ]
    assert [outcome(each) for each in found] == ["better", "worse", "same"]
