"""Judgements: intervals that cover, reproduce and are quick; per-label numbers, mistakes and verdicts."""

import json
import time

import numpy as np
import pytest

from langue.evaluate.judge import judge, mistakes, readable, verdict, written

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
        low, high = judge("classify", *binary(200, 0.85, seed + 10), LABELS, resamples=300).intervals["accuracy"]
        covered += low <= 0.85 <= high
    assert 87 <= covered <= 100


def test_intervals_hold_their_number_and_reproduce():
    for seed in range(5):
        targets, probabilities = binary(150, 0.8, seed)
        found = judge("classify", targets, probabilities, LABELS)
        for name, interval in found.intervals.items():
            assert interval[0] <= found.metrics[name] <= interval[1], name
        assert judge("classify", targets, probabilities, LABELS) == found
        assert judge("classify", targets, probabilities, LABELS, seed=1).intervals != found.intervals


def test_per_label_confusion_and_calibration_by_hand():
    targets = [0, 0, 0, 1, 1]
    probabilities = [[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [1.0, 0.0]]
    found = judge("classify", targets, probabilities, LABELS)
    assert found.confusion == [[2, 1], [1, 1]]
    assert found.per_class["pos"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    assert found.per_class["neg"]["precision"] == pytest.approx(2 / 3)
    assert [one["count"] for one in found.calibration] == [1] * 5
    assert found.calibration[-1] == {"confidence": 1.0, "accuracy": 0.0, "count": 1}


def test_multilabel():
    targets = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]])
    found = judge("multilabel", targets, [[0.9, 0.1, 0.0], [0.8, 0.3, 0.2], [0.1, 0.1, 0.1]], ["a", "b", "c"])
    assert found.per_class["a"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 2}
    assert found.per_class["b"]["recall"] == 0.0
    assert found.metrics["accuracy"] == pytest.approx(2 / 3)
    assert found.notes == ["No example is labelled c."]


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
    assert set(summary) == {"split", "examples", "metrics", "intervals", "baseline", "seconds"}
    assert summary["examples"] == 50 and summary["baseline"] == baseline
    assert json.loads(json.dumps(summary)) == summary


@pytest.mark.parametrize("task", ["classify", "regress"])
def test_25000_examples_are_judged_quickly(task):
    targets, probabilities = binary(25_000, 0.93, 0)
    began = time.perf_counter()
    judge(task, targets, probabilities if task == "classify" else np.round(probabilities[:, 1] * 5, 2), LABELS)
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
        "classify", targets, probabilities, ["a", "b", "c", "d"], LABELS, limit=2, pairs=["w", "x", "y", "z"]
    )
    assert found == [
        {"text": "c", "pair": "y", "label": "pos", "predicted": "neg", "score": 0.95},
        {"text": "a", "pair": "w", "label": "neg", "predicted": "pos", "score": 0.9},
    ]
    found = mistakes("regress", [1.0, 2.0], [1.0, 4.5], ["a", "b"])
    assert found == [{"text": "b", "label": "2", "predicted": "4.5", "score": 2.5}]
    found = mistakes("multilabel", np.array([[1, 0], [0, 1]]), [[0.9, 0.6], [0.0, 0.1]], ["a", "b"], LABELS)
    assert found == [
        {"text": "b", "label": "pos", "predicted": "(none)", "score": 0.9},
        {"text": "a", "label": "neg", "predicted": "neg, pos", "score": 0.6},
    ]


@pytest.mark.parametrize(("theirs", "outcome"), [(0.80, "better"), (0.90, "same"), (0.97, "worse"), (None, "unknown")])
def test_verdict(theirs, outcome):
    summary = {
        "examples": 800,
        "metrics": {"accuracy": 0.91},
        "intervals": {"accuracy": [0.89, 0.93]},
        "baseline": {"name": "bigram tf-idf", "metrics": {"accuracy": theirs}},
    }
    found = verdict("classify", summary)
    assert found.outcome == outcome
    assert "\n" not in found.sentence and (theirs is None or "91.00%" in found.sentence)


@pytest.mark.parametrize(
    ("right", "n", "theirs", "outcome"),
    [
        (1, 1, 0.0, "same"),
        (5, 5, 0.0, "same"),
        (5, 5, 0.8, "same"),
        (10, 10, 0.9, "same"),
        (0, 1, 1.0, "same"),
        (6, 6, 0.0, "better"),
        (40, 40, 0.9, "better"),
        (0, 40, 0.1, "worse"),
    ],
)
def test_a_verdict_at_0_or_100_percent_depends_on_how_many_examples_there_are(right, n, theirs, outcome):
    said = np.eye(2)[[0] * right + [1] * (n - right)]
    baseline = {"name": "majority", "metrics": {"accuracy": theirs}}
    summary = judge("classify", [0] * n, said, LABELS).as_json("test", baseline, 1.0)
    low, high = summary["intervals"]["accuracy"]
    assert low < high and low <= right / n <= high
    found = verdict("classify", summary)
    assert found.outcome == outcome
    within = low <= theirs <= high
    assert within == ("within the 95% interval" in found.sentence) or outcome != "same"


def test_where_resamples_are_alike_and_no_end_is_reached_there_is_no_interval():
    found = judge("multilabel", [[1, 1, 0]], [[0.9, 0.1, 0.0]], ["a", "b", "c"])
    assert found.intervals["f1_micro"] is None
    baseline = {"name": "majority", "metrics": {"f1_micro": 0.5}}
    told = verdict("multilabel", found.as_json("test", baseline, 1.0))
    assert told.outcome == "same" and "too few examples to tell" in told.sentence
    exact = judge("regress", [1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert exact.intervals["mse"] is None and exact.intervals["spearman"][0] < 0


def test_verdict_without_a_number_or_a_baseline():
    assert verdict("regress", {"metrics": {"spearman": None}, "intervals": {}, "baseline": None}).outcome == "unknown"
    assert verdict("classify", {"metrics": {"accuracy": 1.0}, "intervals": {}, "baseline": None}).outcome == "unknown"


def test_names_and_numbers_as_people_write_them():
    assert readable("f1_macro") == "F1, macro" and readable("mse") == "mean squared error"
    assert readable("calibration_error") == "calibration error" and readable("f1_samples") == "F1, per text"
    assert written("accuracy", 0.93456) == "93.46%" and written("mcc", 0.5) == "0.5000" and written("f1", None) == "–"
    assert written("mse", 2.5356e-13) == "2.536e-13" and [written("mse", n) for n in (0.5, 0.0)] == ["0.5000", "0.0000"]


def test_an_unknown_task_is_a_programming_error():
    with pytest.raises(ValueError, match="classify, multilabel, regress"):
        judge("translate", [0], [0])
