"""Floor 5. What arrives: what `judge` found. What leaves: the sections that show
it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langue.evaluation.judge import Judgement
from langue.tasks.judgement import Example, Examples, Matrix, Passage, Points, Section, Table

REPEATED = {"classify": ("f1_micro",)}  # which is the accuracy where each text has one label


def sections_of(judgement: Judgement, mistakes: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Confusions, calibration or a scatter plot, scores by label, and the worst mistakes."""
    made: list[Section] = []
    labels = list(judgement.per_class)
    if judgement.confusion is not None:
        made.append(Matrix("Confusion matrix", labels, labels, judgement.confusion))
    if judgement.calibration:
        made.append(_calibration(judgement))
    if judgement.points:
        made.append(_scatter(judgement))
    if judgement.per_class:
        rows = [
            (label, each["precision"], each["recall"], each["f1"], int(each["support"]))
            for label, each in judgement.per_class.items()
        ]
        columns = ("label", "precision", "recall", "F1", "examples")
        made.append(Table("By label", columns, rows, shares=(1, 2, 3), bar=3))
    if mistakes:
        made.append(_mistakes(judgement.task, mistakes))
    return made


def _calibration(judgement: Judgement) -> Points:
    return Points(
        title="Calibration",
        x="confidence",
        y="share that is right",
        points=[(one["confidence"], one["accuracy"]) for one in judgement.calibration],
        sizes=[one["count"] for one in judgement.calibration],
        sizes_are="answers",
        diagonal=True,
        joined=True,
        percent=True,
        note=(
            "Of the answers given with some confidence, how many are right. On the diagonal they"
            " agree; below it the model is too sure of itself. The size of a point is the number"
            " of its answers."
        ),
    )


def _scatter(judgement: Judgement) -> Points:
    count = len(judgement.points)
    shown = (
        f"{count:,} of {judgement.examples:,} examples, drawn at random"
        if count < judgement.examples
        else "Every example"
    )
    return Points(
        title="Predicted against true",
        x="true",
        y="predicted",
        points=judgement.points,
        diagonal=True,
        note=f"{shown}; on the diagonal the prediction is exact.",
    )


def _mistakes(task: str, mistakes: Sequence[Mapping[str, Any]]) -> Examples:
    scores = task == "regress"
    rows = []
    for mistake in mistakes:
        texts = [mistake["text"], *([mistake["pair"]] if "pair" in mistake else [])]
        cells = (mistake["label"], mistake["predicted"], float(mistake["score"]))
        rows.append(Example([Passage(text) for text in texts], cells))
    first = "The largest errors" if scores else "The surest of its wrong answers"
    what = "scores" if scores else "labels"
    return Examples(
        title="Worst mistakes",
        columns=("true", "predicted", "error" if scores else "confidence"),
        rows=rows,
        shares=() if scores else (2,),
        note=f"{first} first: a good place to look for wrong {what}, too.",
    )
