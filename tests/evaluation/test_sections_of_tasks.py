"""What the reports of classification and regression show."""

import numpy as np
import pytest

from langue.evaluation import report
from langue.evaluation.judge import verdict
from tests.judging import MAIN_METRIC, compare, judge, mistakes


def page(task: str, labels: list[str], n: int = 120) -> str:
    generator = np.random.default_rng(0)
    if task == "classify":
        targets = generator.integers(0, len(labels), n)
        predictions = generator.dirichlet(np.ones(len(labels)), n)
    elif task == "multilabel":
        targets = generator.integers(0, 2, (n, len(labels)))
        predictions = generator.random((n, len(labels)))
    else:
        targets = generator.random(n) * 5
        predictions = generator.random(n) * 5
    found = judge(task, targets, predictions, labels, resamples=20)
    main = MAIN_METRIC[task]
    same = compare(
        task, targets, predictions, predictions, main, n_labels=len(labels), resamples=20
    )
    baseline = {"name": "bigrams", "metrics": found.metrics, "seconds": 2.0}
    content = found.as_json("test", baseline | {"comparison": same.as_json()}, 3.0)
    worst = mistakes(task, targets, predictions, ["text"] * n, labels, limit=5)
    return report.render(
        report.Page(
            title="t",
            verdict=verdict(content),
            notes=found.notes,
            summary=content,
            primary=main,
            repeated=found.repeated,
            sections=[*found.sections, worst],
        )
    )


@pytest.mark.parametrize(
    ("task", "labels", "there", "absent"),
    [
        (
            "classify",
            ["neg", "pos"],
            ["Confusion matrix", "Calibration", "By label", "Worst mistakes", "confidence"],
            ["F1, micro", "Predicted against true"],
        ),
        (
            "classify",
            [f"label {i}" for i in range(40)],
            ["Commonest confusions", "By label", "label 39"],
            ["Confusion matrix"],
        ),
        ("multilabel", ["a", "b", "c"], ["By label", "F1, micro"], ["Confusion matrix"]),
        ("regress", [], ["Predicted against true", "The largest errors"], ["By label"]),
    ],
)
def test_each_task_shows_what_it_judges(task, labels, there, absent):
    shown = page(task, labels)
    assert [words for words in there if words not in shown] == []
    assert [words for words in absent if words in shown] == []
    assert "Not distinguishable from its baseline" in shown
    assert shown.count("<circle") == (120 if task == "regress" else shown.count("<circle"))


def test_what_is_undefined_is_said():
    found = judge("regress", [1.0], [1.0], resamples=5)
    content = found.as_json("test", None, 0.1)
    shown = report.render(
        report.Page("t", verdict=verdict(content), notes=found.notes, summary=content)
    )
    assert "undefined" in shown and "nan" not in shown.lower()
    found = judge("classify", [0], [[1.0, 0.0]], ["a", "b"], resamples=5)
    content = found.as_json("test", None, 0.1)
    assert "has no baseline" in verdict(content).sentence
