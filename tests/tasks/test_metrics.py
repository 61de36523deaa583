"""The metrics against scikit-learn's, scipy's and cases worked by hand; and what they say where
nothing can be said."""

import json
import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from langue.errors import DataError, RunError
from langue.statistics import metrics as m


def draw(n: int, n_labels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, n_labels, n)
    logits = generator.normal(size=(n, n_labels))
    logits[np.arange(n), targets] += 1.0
    probabilities = np.exp(logits)
    return targets, probabilities / probabilities.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("n_labels", [2, 3, 20])
# 7 of 20 labels: most occur in neither targets nor predictions
@pytest.mark.parametrize("n", [1, 7, 400])
def test_classification_agrees_with_scikit_learn(n, n_labels):
    targets, probabilities = draw(n, n_labels, seed=n)
    predicted = probabilities.argmax(axis=1)
    found = m.classification(targets, probabilities, n_labels)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(targets, predicted))
    for name, function in {
        "f1": sk.f1_score,
        "precision": sk.precision_score,
        "recall": sk.recall_score,
    }.items():
        expected = function(targets, predicted, average="macro", zero_division=0)
        assert found[f"{name}_macro"] == pytest.approx(expected), name
        if n_labels == 2:
            assert found[name] == pytest.approx(function(targets, predicted, zero_division=0)), name
    assert found["f1_micro"] == pytest.approx(sk.f1_score(targets, predicted, average="micro"))
    if len(set(targets)) > 1:
        assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(targets, predicted))
    assert (n_labels == 2) == ("f1" in found)


@pytest.mark.parametrize("n_labels", [1, 4])
def test_multilabel_agrees_with_scikit_learn(n_labels):
    generator = np.random.default_rng(1)
    targets = (generator.random((300, n_labels)) < 0.3).astype(int)
    probabilities = generator.random((300, n_labels)) * 0.6 + targets * 0.3
    predicted = (probabilities >= 0.5).astype(int)
    found = m.multilabel(targets, probabilities)
    assert found["accuracy"] == pytest.approx((targets == predicted).all(axis=1).mean())
    assert found["hamming_loss"] == pytest.approx((targets != predicted).mean())
    for name, function in {
        "f1": sk.f1_score,
        "precision": sk.precision_score,
        "recall": sk.recall_score,
    }.items():
        one_by_one = [
            function(targets[:, c], predicted[:, c], zero_division=0) for c in range(n_labels)
        ]
        assert found[f"{name}_macro"] == pytest.approx(np.mean(one_by_one)), name
        assert found[f"{name}_micro"] == pytest.approx(
            function(targets.ravel(), predicted.ravel())
        ), name
    if n_labels > 1:
        assert found["f1_samples"] == pytest.approx(
            sk.f1_score(targets, predicted, average="samples", zero_division=1.0)
        )


@pytest.mark.parametrize("ties", [False, True])
def test_regression_agrees_with_scipy(ties):
    generator = np.random.default_rng(2)
    targets = generator.integers(0, 6, 500).astype(float) if ties else generator.normal(size=500)
    scores = np.round(targets + generator.normal(size=500), 0 if ties else 9)
    found = m.regression(targets, scores)
    assert found["pearson"] == pytest.approx(stats.pearsonr(targets, scores).statistic)
    assert found["spearman"] == pytest.approx(stats.spearmanr(targets, scores).statistic)
    assert found["mse"] == pytest.approx(sk.mean_squared_error(targets, scores))


def test_correlations_hold_far_from_zero():
    targets = 1e6 + np.arange(50.0)
    scores = 1e6 + np.arange(50.0)[::-1] * 1e-3
    found = m.regression(targets, scores)
    assert found["pearson"] == pytest.approx(-1.0, abs=1e-6)
    assert found["spearman"] == pytest.approx(-1.0)


@pytest.mark.parametrize("outlier", [1e3, 1e6, 1e12])
def test_a_correlation_of_rows_without_the_outlier_is_theirs(outlier):
    generator = np.random.default_rng(0)
    targets, scores = generator.random((2, 200))
    weights = np.ones((201, 2))
    weights[-1, 0] = 0
    found = m.regression_measure([*targets, outlier], [*scores, outlier])(weights)
    assert found["pearson"][0] == pytest.approx(stats.pearsonr(targets, scores).statistic, abs=1e-6)
    assert found["spearman"][0] == pytest.approx(stats.spearmanr(targets, scores).statistic)
    assert found["pearson"][1] > 0.9


def test_by_hand():
    # true 0 0 0 1 1, predicted 0 0 1 1 0: of 0: 2 right of 3 said of 3 true; of 1: 1 of 2 said of 2
    # true
    targets = [0, 0, 0, 1, 1]
    probabilities = [[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [1.0, 0.0]]
    found = m.classification(targets, probabilities, 2)
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["f1_macro"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert (found["precision"], found["recall"], found["f1"]) == (0.5, 0.5, 0.5)
    assert found["mcc"] == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2))
    # bins of a fifteenth: 0.9 and 0.8 and 0.6 and 0.7 and 1.0 each alone; gaps 0.1, 0.2, 0.6, 0.3,
    # 1.0 over 5
    assert found["calibration_error"] == pytest.approx((0.1 + 0.2 + 0.6 + 0.3 + 1.0) / 5)


def test_calibration_error_joins_the_answers_of_a_bin():
    # Four answers of confidence 0.75, three right: calibrated as a group, however wrong each alone.
    probabilities = [[0.75, 0.25]] * 4
    assert m.classification([0, 0, 0, 1], probabilities, 2)["calibration_error"] == pytest.approx(
        0.0
    )
    assert m.classification([0, 1, 1, 1], probabilities, 2)["calibration_error"] == pytest.approx(
        0.5
    )


def test_bins_are_open_below_and_closed_above():
    edges = np.array([0.0, 1e-9, 1 / 15, 1 / 15 + 1e-9, 1.0])
    assert m.confidence_bins(edges).tolist() == [0, 0, 0, 1, 14]


def test_what_is_undefined_is_none_and_json_can_hold_it():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one_class = m.classification([1, 1, 1], [[0.2, 0.8], [0.6, 0.4], [0.1, 0.9]], 2)
        same_answer = m.classification([0, 1, 1], [[0.2, 0.8]] * 3, 2)
        flat_scores = m.regression([1.0, 2.0, 3.0], [0.1, 0.1, 0.1])
        flat_targets = m.regression([0.3, 0.3, 0.3], [0.1, 0.2, 0.3])
        single = m.regression([1.0], [2.0])
        nothing = m.multilabel([[0, 0], [0, 0]], [[0.1, 0.2], [0.3, 0.1]])
    assert one_class["mcc"] is None
    assert same_answer["mcc"] == 0.0
    assert (flat_scores["pearson"], flat_scores["spearman"]) == (None, None)
    assert flat_scores["mse"] == pytest.approx(((0.9) ** 2 + 1.9**2 + 2.9**2) / 3)
    assert (flat_targets["pearson"], flat_targets["spearman"]) == (None, None)
    assert single == {"pearson": None, "spearman": None, "mse": 1.0}
    assert (
        nothing["f1_samples"] == 1.0 and nothing["accuracy"] == 1.0 and nothing["f1_macro"] == 0.0
    )
    json.dumps(
        [one_class, same_answer, flat_scores, flat_targets, single, nothing], allow_nan=False
    )


def test_macro_averages_leave_out_a_label_that_never_occurs():
    targets = [0, 1]
    probabilities = [[0.9, 0.1, 0.0], [0.1, 0.9, 0.0]]
    assert m.classification(targets, probabilities, 3)["f1_macro"] == 1.0
    assert m.multilabel([[1, 0], [1, 0]], [[0.9, 0.0], [0.9, 0.0]])["f1_macro"] == 1.0


def test_weights_count_an_example_that_often():
    targets, probabilities = draw(30, 4)
    weights = np.random.default_rng(3).integers(0, 3, 30)
    repeated = np.repeat(np.arange(30), weights)
    found = m.classification_measure(targets, probabilities, 4)(weights[:, None].astype(float))
    for name, value in m.classification(targets[repeated], probabilities[repeated], 4).items():
        assert found[name][0] == pytest.approx(value), name
    chosen = (probabilities > 0.3).astype(int)
    found = m.multilabel_measure(chosen, probabilities)(weights[:, None].astype(float))
    for name, value in m.multilabel(chosen[repeated], probabilities[repeated]).items():
        assert found[name][0] == pytest.approx(value), name
    scores = np.round(probabilities[:, 0], 1)
    found = m.regression_measure(targets, scores)(weights[:, None].astype(float))
    for name, value in m.regression(targets[repeated], scores[repeated]).items():
        assert found[name][0] == pytest.approx(value), name


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(
        RunError, match="2 outputs that are not numbers; training has diverged: lower train.lr"
    ):
        m.classification([0, 1], [[np.nan, 0.5], [0.5, np.inf]], 2)
    with pytest.raises(RunError, match="not numbers"):
        m.regression([0.0], [np.inf])
    with pytest.raises(DataError, match="no examples"):
        m.classification([], np.zeros((0, 2)), 2)
    with pytest.raises(ValueError, match="logits"):
        m.classification([0], [[3.0, -1.0]], 2)
    with pytest.raises(ValueError, match="targets from 0 to 2"):
        m.classification([0, 2], [[0.5, 0.5]] * 2, 2)
    with pytest.raises(ValueError, match="for 3 labels"):
        m.classification([0, 1], [[0.5, 0.5]] * 2, 3)
    with pytest.raises(ValueError, match="0 or 1"):
        m.multilabel([[2, 0]], [[0.5, 0.5]])
    with pytest.raises(ValueError, match="both are"):
        m.multilabel([[1, 0]], [[0.5, 0.5, 0.1]])
    with pytest.raises(ValueError, match="both are"):
        m.regression([1.0, 2.0], [1.0])
