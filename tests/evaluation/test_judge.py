"""Judgements: intervals that cover, reproduce and are quick; per-label numbers, mistakes and
verdicts."""

import json
import time

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binomtest

from langue.evaluation.judge import format_metric, metric_label, verdict
from langue.statistics.intervals import at_end, clopper_pearson, lowest_shares
from tests.judging import MAIN_METRIC, compare, judge, mistakes, section

LABELS = ["neg", "pos"]


def binary(n: int, right: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, 2, n)
    said = np.where(generator.random(n) < right, targets, 1 - targets)
    confidence = generator.uniform(0.55, 0.99, n)
    positive = np.where(said == 1, confidence, 1 - confidence)
    return targets, np.stack([1 - positive, positive], axis=1)


def test_interval_is_that_of_the_binomial():
    targets, probabilities = binary(2000, 0.9, 0)
    found = judge("classify", targets, probabilities, LABELS)
    accuracy = found.metrics["accuracy"]
    half = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 2000)
    low, high = found.intervals["accuracy"]
    assert low == pytest.approx(accuracy - half, abs=0.002)
    assert high == pytest.approx(accuracy + half, abs=0.002)


def test_interval_of_pearson_is_near_fishers():
    generator = np.random.default_rng(1)
    targets = generator.normal(size=1500)
    found = judge("regress", targets, targets + generator.normal(size=1500))
    z = np.arctanh(found.metrics["pearson"])
    expected = np.tanh([z - 1.96 / np.sqrt(1497), z + 1.96 / np.sqrt(1497)])
    assert found.intervals["pearson"] == pytest.approx(expected, abs=0.008)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    covered = 0
    for seed in range(100):
        low, high = judge(
            "classify", *binary(200, 0.85, seed + 10), LABELS, resamples=300
        ).intervals["accuracy"]
        covered += low <= 0.85 <= high
    assert 87 <= covered <= 100


def test_intervals_hold_their_number_and_reproduce():
    for seed in range(5):
        targets, probabilities = binary(150, 0.8, seed)
        found = judge("classify", targets, probabilities, LABELS)
        for name, interval in found.intervals.items():
            assert interval[0] <= found.metrics[name] <= interval[1], name
        assert judge("classify", targets, probabilities, LABELS) == found
        assert (
            judge("classify", targets, probabilities, LABELS, seed=1).intervals != found.intervals
        )


def test_per_label_confusion_and_calibration_by_hand():
    targets = [0, 0, 0, 1, 1]
    probabilities = [[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [1.0, 0.0]]
    found = judge("classify", targets, probabilities, LABELS)
    assert section(found, "Confusion matrix").counts == [[2, 1], [1, 1]]
    by_label = section(found, "By label")
    assert by_label.columns == ("label", "precision", "recall", "F1", "examples")
    assert by_label.rows[1] == ("pos", 0.5, 0.5, 0.5, 2)
    assert by_label.rows[0][1] == pytest.approx(2 / 3)
    calibration = section(found, "Calibration")
    assert calibration.sizes == [1] * 5 and calibration.points[-1] == (1.0, 0.0)


def test_multilabel():
    targets = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]])
    found = judge(
        "multilabel", targets, [[0.9, 0.1, 0.0], [0.8, 0.3, 0.2], [0.1, 0.1, 0.1]], ["a", "b", "c"]
    )
    by_label = section(found, "By label").rows
    assert by_label[0] == ("a", 1.0, 1.0, 1.0, 2)
    assert by_label[1][2] == 0.0
    assert found.metrics["accuracy"] == pytest.approx(2 / 3)
    assert found.notes[0] == "No example is labelled c."
    assert found.notes[1].startswith("Fewer than 5 examples are labelled a, b: macro averages")


def test_undefined_is_null_and_said():
    one_class = judge("classify", [1, 1], [[0.2, 0.8], [0.6, 0.4]], LABELS)
    assert one_class.metrics["mcc"] is None and one_class.intervals["mcc"] is None
    assert "MCC is undefined" in one_class.notes[0]
    stuck = judge("classify", [0, 1], [[0.2, 0.8]] * 2, LABELS)
    assert stuck.notes == ["The model answers 'pos' every time."]
    flat = judge("regress", [1.0, 2.0, 3.0], [0.5, 0.5, 0.5])
    assert flat.intervals["spearman"] is None and flat.intervals["mse"] is not None
    assert flat.notes == ["The model answers 0.5 every time, so the correlations are undefined."]
    for found in (one_class, stuck, flat):
        json.dumps(found.as_json("test", None, 1.0), allow_nan=False)


def test_metrics_json_has_the_promised_keys():
    targets, probabilities = binary(50, 0.9, 0)
    baseline = {"name": "unigram", "metrics": {"accuracy": 0.5}, "seconds": 1.0}
    summary = judge("classify", targets, probabilities, LABELS).as_json("test", baseline, 1.23456)
    assert set(summary) == {
        "main_metric",
        "split",
        "examples",
        "metrics",
        "positive",
        "intervals",
        "baseline",
        "seconds",
    }
    assert (
        summary["positive"] == "pos"
        and summary["examples"] == 50
        and summary["baseline"] == baseline
    )
    assert json.loads(json.dumps(summary)) == summary


@pytest.mark.parametrize("task", ["classify", "regress"])
@pytest.mark.timed
def test_25000_examples_are_judged_quickly(task):
    targets, probabilities = binary(25_000, 0.93, 0)
    began = time.perf_counter()
    judge(
        task,
        targets,
        probabilities if task == "classify" else np.round(probabilities[:, 1] * 5, 2),
        LABELS,
    )
    assert time.perf_counter() - began < 10  # about 1 s alone; the rest is for busy machines


def test_memory_does_not_grow_with_the_number_of_labels():
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 1000, 2000)
    probabilities = generator.dirichlet(np.ones(1000), 2000)
    found = judge("classify", targets, probabilities, [str(i) for i in range(1000)], resamples=50)
    assert found.intervals["accuracy"] is not None


def test_mistakes_are_the_surest_first():
    targets = [0, 1, 1, 0]
    probabilities = [[0.1, 0.9], [0.4, 0.6], [0.95, 0.05], [0.3, 0.7]]
    found = mistakes(
        "classify",
        targets,
        probabilities,
        ["a", "b", "c", "d"],
        LABELS,
        limit=2,
        pairs=["w", "x", "y", "z"],
    )
    assert rows_of(found) == [("c", "y", "pos", "neg", 0.95), ("a", "w", "neg", "pos", 0.9)]
    found = mistakes("regress", [1.0, 2.0], [1.0, 4.5], ["a", "b"])
    assert rows_of(found) == [("b", "2", "4.5", 2.5)]
    found = mistakes(
        "multilabel", np.array([[1, 0], [0, 1]]), [[0.9, 0.6], [0.0, 0.1]], ["a", "b"], LABELS
    )
    assert rows_of(found) == [("b", "pos", "(none)", 0.9), ("a", "neg", "neg, pos", 0.6)]


def rows_of(examples):
    return [(*(each.text for each in row.passages), *row.cells) for row in examples.rows]


def summarised(task, targets, ours, theirs, labels=LABELS, metric=None):
    """metrics.json of a model and a baseline that answered the same examples."""
    metric = metric or MAIN_METRIC[task]
    compared = compare(task, targets, ours, theirs, metric, n_labels=len(labels))
    metrics = judge(task, targets, theirs, labels, resamples=20).metrics
    baseline = {"name": "bigram tf-idf", "metrics": metrics, "seconds": 1.0}
    baseline["comparison"] = compared.as_json() if compared else None
    summary = judge(task, targets, ours, labels).as_json("test", baseline, 1.0)
    return json.loads(json.dumps(summary, allow_nan=False))


def rights(right, n, first=0):
    """Answers to n examples of label 0, of which so many, from the first on, are right."""
    return np.eye(2)[[0 if first <= i < first + right else 1 for i in range(n)]]


@pytest.mark.parametrize(
    ("ours", "theirs", "n", "outcome"),
    [
        (91, 80, 100, "better"),
        (80, 91, 100, "worse"),
        (91, 90, 100, "same"),
        (1, 0, 1, "same"),
        (5, 0, 5, "same"),
        (6, 0, 6, "better"),  # 2 of 64 ways to exchange the answers differ as much
        (0, 6, 6, "worse"),
        (40, 36, 40, "same"),  # as for 4 and 0: whether all others are right or wrong says nothing
        (40, 34, 40, "better"),
    ],
)
def test_verdict(ours, theirs, n, outcome):
    found = verdict(summarised("classify", [0] * n, rights(ours, n), rights(theirs, n)))
    assert found.outcome == outcome
    assert (
        "\n" not in found.sentence
        and f"{100 * ours / n:.2f}% against {100 * theirs / n:.2f}%" in found.sentence
    )
    assert (
        f"same {n} example" if outcome == "same" else " points (95% interval over the same"
    ) in found.sentence


def test_the_same_two_scores_may_differ_or_not():
    """91 of 100 and 80 of 100: with one text that the better one alone has wrong, and with half of
    its own."""
    targets = [0] * 100
    near = summarised("classify", targets, rights(56, 100), rights(50, 100))
    far = summarised("classify", targets, rights(56, 100), rights(50, 100, first=50))
    assert (
        near["metrics"] == far["metrics"]
        and near["baseline"]["metrics"] == far["baseline"]["metrics"]
    )
    assert [verdict(each).outcome for each in (near, far)] == ["better", "same"]


def test_one_that_ranks_better_and_errs_more_is_no_better():
    targets = np.linspace(0, 1, 50)
    noise = np.random.default_rng(0).normal(size=50)
    found = verdict(summarised("regress", targets, targets + 5, targets + noise, ()))
    assert found.outcome == "same" and found.sentence.startswith(
        "It ranks better than its baseline, but errs more"
    )


def test_a_verdict_says_of_which_label_its_metric_is():
    targets = np.arange(60) % 2
    found = summarised(
        "classify", targets, np.eye(2)[targets], rights(60, 60), ["ham", "spam\n"], metric="recall"
    )
    sentence = verdict(found).sentence
    assert (
        "recall of spam 100.00% against 0.00% of bigram tf-idf" in sentence and "\n" not in sentence
    )


BINOMIAL = [
    (0, 13),
    (13, 13),
    (1, 13),
    (12, 13),
    (0, 1),
    (1, 1),
    (150, 300),
    (299, 300),
    (25_000, 25_000),
]


@pytest.mark.parametrize(("right", "total"), BINOMIAL)
def test_shares_have_the_exact_interval(right, total):
    """Clopper and Pearson's: the shares under which neither so few nor so many right ones have
    2.5%."""
    expected = binomtest(right, total).proportion_ci(0.95, "exact")
    assert clopper_pearson(right, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("positive", [0, 1])
@pytest.mark.parametrize("said", [0, 1, 5, 13])
def test_precision_recall_and_f1_are_of_their_own_count(positive, said):
    """13 of 300 texts have the label; so many of them are told, and as many others are called
    so."""
    targets = np.array([1] * 13 + [0] * 287)
    answers = np.array([1] * said + [0] * (13 - said) + [1] * said + [0] * (287 - said))
    if not positive:
        targets = 1 - targets
        answers = 1 - answers
    found = judge("classify", targets, np.eye(2)[answers], LABELS, positive=positive)
    assert found.positive == LABELS[positive] and found.metrics["recall"] == pytest.approx(
        said / 13
    )
    assert found.intervals["recall"] == clopper_pearson(said, 13)
    assert found.intervals["precision"] == (clopper_pearson(said, 2 * said) if said else (0.0, 1.0))
    # F1 goes with the share of those that have it or are called so
    low, high = clopper_pearson(said, 13 + said)
    assert found.intervals["f1"] == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))
    if said == 0:
        assert found.intervals["recall"] == pytest.approx((0.0, 0.24705), abs=1e-5)


@pytest.mark.parametrize("counts", [[13], [2, 998], [10, 10, 10, 10], [2, 7, 30, 500], [1, 1, 400]])
def test_a_perfect_macro_average_is_only_as_sure_as_its_rarest_label(counts):
    """The least mean of true shares under which all right has 2.5%, found the slow way."""
    sizes = np.array(counts, float)
    # what part of log 2.5% each label takes
    whole = {"type": "eq", "fun": lambda parts: parts.sum() - 1}
    begin = np.full(len(counts), 1 / len(counts))
    ends = [(0, 1)] * len(counts)
    slow = minimize(
        lambda parts: (0.025 ** (parts / sizes)).mean(),
        begin,
        bounds=ends,
        constraints=whole,
        tol=1e-12,
    )
    shares = lowest_shares(np.array(counts))
    assert sizes @ np.log(shares) == pytest.approx(
        np.log(0.025)
    ) and shares.mean() == pytest.approx(slow.fun, abs=1e-5)
    low, high = at_end("recall_macro", 1.0, np.array(counts))
    assert (low, high) == (pytest.approx(shares.mean()), 1.0)
    assert at_end("recall_macro", 0.0, np.array(counts)) == pytest.approx((0.0, 1 - shares.mean()))
    of_hundred = [100 * end for end in at_end("recall", 1.0, 40)]
    assert at_end("bleu", 100.0, 40) == pytest.approx(of_hundred)
    assert at_end("bleu", 1.0, 40) == (1.0, 1.0)
    if len(counts) > 1:
        targets = np.repeat(np.arange(len(counts)), counts)
        labels = [str(i) for i in range(len(counts))]
        found = judge("classify", targets, np.eye(len(counts))[targets], labels, resamples=50)
        for name in ("recall_macro", "precision_macro"):
            assert found.intervals[name] == pytest.approx((low, 1.0))
        assert (
            low < found.intervals["f1_macro"][0] < 1.0
            and found.intervals["mcc"][0] <= 2 * 0.025 ** (1 / min(counts)) - 1
        )
        assert found.intervals["accuracy"] == clopper_pearson(sum(counts), sum(counts))


def test_a_perfect_average_of_several_labels_is_of_the_texts_that_have_some():
    """Nine of 200 texts have labels, and are told."""
    targets = np.zeros((200, 2), int)
    targets[:9, 0] = 1
    targets[:7, 1] = 1
    found = judge("multilabel", targets, targets.astype(float), ["a", "b"], resamples=50)
    for name in ("f1_micro", "precision_micro", "recall_micro"):
        assert found.intervals[name] == pytest.approx((0.025 ** (1 / 9), 1.0))
    assert found.intervals["recall_macro"][0] == pytest.approx(
        lowest_shares(np.array([9, 7])).mean()
    )
    assert found.intervals["accuracy"] == clopper_pearson(200, 200)


def test_where_resamples_are_alike_and_no_end_is_reached_there_is_no_interval():
    found = judge("multilabel", [[1, 1, 0]], [[0.9, 0.1, 0.0]], ["a", "b", "c"])
    assert found.intervals["f1_micro"] is None
    exact = judge("regress", [1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert exact.intervals["mse"] is None and exact.intervals["spearman"][0] < 0


def test_verdict_without_a_number_or_a_baseline():
    assert (
        verdict(
            {"main_metric": "spearman", "metrics": {"spearman": None}, "baseline": None}
        ).outcome
        == "unknown"
    )
    assert (
        verdict({"main_metric": "accuracy", "metrics": {"accuracy": 1.0}, "baseline": None}).outcome
        == "unknown"
    )
    flat = summarised("regress", [1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [2.0, 2.0, 2.0], ())
    assert flat["baseline"]["comparison"] is None and verdict(flat).outcome == "unknown"
    before = {"name": "bigram tf-idf", "metrics": {"accuracy": 0.5}}  # as runs made earlier have it
    found = verdict({"main_metric": "accuracy", "metrics": {"accuracy": 1.0}, "baseline": before})
    assert (
        found.outcome == "unknown" and "100.00% against 50.00% of bigram tf-idf" in found.sentence
    )


def test_names_and_numbers_as_people_write_them():
    assert metric_label("f1_macro") == "F1, macro" and metric_label("mse") == "mean squared error"
    assert (
        metric_label("calibration_error") == "calibration error"
        and metric_label("f1_samples") == "F1, per text"
    )
    assert (
        format_metric("accuracy", 0.93456) == "93.46%"
        and format_metric("mcc", 0.5) == "0.5000"
        and format_metric("f1", None) == "–"
    )
    assert format_metric("mse", 2.5356e-13) == "2.536e-13" and [
        format_metric("mse", n) for n in (0.5, 0.0)
    ] == ["0.5000", "0.0000"]
