"""The report: everything on one page, nothing fetched, nothing executed, whatever the texts
hold."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from langue.evaluation import curves, report
from langue.evaluation.compare import compare
from langue.evaluation.judge import MAIN_METRIC, judge, mistakes

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&$body\x00\x1b[31m\u202e 酒店 مرحبا 😀"
    " \ud800"
)
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Notes tags and attributes, and fails where tags do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words += data


def context(task: str, labels: list[str], n: int = 120, **more) -> dict:
    generator = np.random.default_rng(0)
    texts = [HOSTILE] * n
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
    baseline = {"name": "bigram tf-idf", "metrics": dict(found.metrics), "seconds": 2.0}
    same = compare(
        task,
        targets,
        predictions,
        predictions,
        MAIN_METRIC[task],
        n_labels=len(labels),
        resamples=20,
    )
    baseline["comparison"] = same.as_json()
    return {
        "title": HOSTILE,
        "model": HOSTILE,
        "task": task,
        "metrics_json": found.as_json("test", baseline, 3.0),
        "judgement": found,
        "mistakes": mistakes(task, targets, predictions, texts, labels, limit=5),
    } | more


def render(tmp_path, given: dict) -> Page:
    report.write(tmp_path / "report.html", given)
    return Page((tmp_path / "report.html").read_text("utf-8"))


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        ("classify", ["neg", "pos"]),
        ("classify", [HOSTILE, "b", "c", "d", "e", "f"]),
        ("classify", [f"label {i}" for i in range(40)]),
        ("multilabel", ["a", "b", HOSTILE]),
        ("regress", []),
    ],
)
def test_hostile_texts_stay_texts(tmp_path, task, labels):
    curves.draw([], tmp_path / "curves.png")
    page = render(
        tmp_path,
        context(
            task,
            labels,
            curves_png=tmp_path / "curves.png",
            settings={"train": {"lr": 3e-5, HOSTILE: HOSTILE}, "data.max_length": 512},
            preview={
                HOSTILE: HOSTILE,
                "labels": {HOSTILE: 3, "b": 0},
                "list": [HOSTILE, 1.5],
                "none": None,
                "cut": True,
            },
            notes=[HOSTILE],
        ),
    )
    assert "script" not in page.tags and page.tags.count("img") == 1
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    for name, value in page.attributes:
        if name in ("src", "href"):
            assert value.startswith("data:image/png;base64,")
    assert "<script>alert(1)</script>" in page.words and "$body" in page.words
    text = (tmp_path / "report.html").read_text("utf-8")
    assert not re.search(r"[\x00\x1b]|https?://", text)


def test_it_shows_what_it_was_given(tmp_path):
    page = render(
        tmp_path,
        context(
            "classify", ["neg", "pos"], settings={"train": {"lr": 3e-5}}, preview={"texts": 25000}
        ),
    )
    for words in (
        "95% interval",
        "baseline",
        "Confusion matrix",
        "Calibration",
        "By label",
        "Worst mistakes",
        "F1 of pos",
    ):
        assert words in page.words, words
    assert "train.lr" in page.words and "3e-05" in page.words and "25,000" in page.words
    assert "Not distinguishable from its baseline" in page.words


def test_scores_get_a_scatter_plot(tmp_path):
    page = render(tmp_path, context("regress", []))
    assert page.tags.count("circle") == 120 and "Predicted against true" in page.words
    assert "Confusion matrix" not in page.words


def test_many_labels_get_their_commonest_confusions(tmp_path):
    page = render(tmp_path, context("classify", [f"label {i}" for i in range(40)]))
    assert "Commonest confusions" in page.words and "Confusion matrix" not in page.words


def test_the_least_that_a_report_needs(tmp_path):
    found = judge("regress", [1.0], [1.0], resamples=5)
    given = {
        "title": "t",
        "model": "m",
        "task": "regress",
        "judgement": found,
        "metrics_json": found.as_json("test", None, 0.1),
    }
    page = render(tmp_path, given)
    assert "undefined" in page.words and "nan" not in page.words.lower()
    found = judge("classify", [0], [[1.0, 0.0]], ["a", "b"], resamples=5)
    page = render(
        tmp_path,
        given
        | {
            "task": "classify",
            "judgement": found,
            "metrics_json": found.as_json("test", None, 0.1),
        },
    )
    assert "has no baseline" in page.words


def test_long_texts_are_cut_and_the_cut_is_told(tmp_path):
    given = context(
        "classify",
        ["neg", "pos"],
        mistakes=[{"text": "x" * 100_000, "label": "neg", "predicted": "pos", "score": 0.9}],
    )
    assert "(97,000 more characters)" in render(tmp_path, given).words
