"""Tasks as tests judge with them: by a name and the labels, without a run."""

import numpy as np

from langue.statistics.compare import compare_systems
from langue.statistics.intervals import RESAMPLES
from langue.statistics.metrics import THRESHOLD
from langue.tasks.classify import Classify, ClassifyOptions, LabelBaseline
from langue.tasks.regress import Regress
from langue.text.read.source import read

MAIN_METRIC = {"classify": "accuracy", "multilabel": "f1_micro", "regress": "spearman"}


def task_of(kind, labels=(), positive=1, threshold=THRESHOLD, balanced=False):
    """A task with these labels; positive: the index of one of two."""
    if kind == "regress":
        return Regress(Regress.Options())
    options = ClassifyOptions(
        multi_label=kind == "multilabel" or None,
        class_weights="balanced" if balanced else "none",
    )
    names = list(labels)
    one = names[positive] if len(names) == 2 and kind == "classify" else None
    task = Classify(names, options, positive=one)
    task.threshold = threshold
    return task


def judge(kind, targets, predictions, labels=(), *, resamples=RESAMPLES, seed=0, **more):
    task = task_of(kind, labels, **more)
    return task.judge(np.asarray(targets), np.asarray(predictions), resamples=resamples, seed=seed)


def compare(
    kind,
    targets,
    model,
    baseline,
    metric,
    *,
    n_labels=0,
    positive=1,
    thresholds=(THRESHOLD, THRESHOLD),
    resamples=RESAMPLES,
    seed=0,
):
    n_labels = np.asarray(targets).shape[1] if kind == "multilabel" else n_labels
    task = task_of(kind, [str(i) for i in range(n_labels)], positive, thresholds[0])
    beside = LabelBaseline("", {}, np.asarray(baseline), 0.0, thresholds[1])
    systems = task.systems(np.asarray(targets), np.asarray(model), beside, metric)
    return compare_systems(systems, metric, resamples, seed)


def mistakes(kind, targets, predictions, texts, labels=(), *, limit=20, pairs=None, **more):
    """The section of the worst mistakes."""
    rows = {"text": list(texts)} | ({} if pairs is None else {"pair": list(pairs)})
    table = table_of(**rows)
    task = task_of(kind, labels, **more)
    return task.mistakes(table, np.asarray(targets), np.asarray(predictions), limit)


def baseline(
    kind,
    train_texts,
    train_targets,
    test_texts,
    test_targets,
    *,
    train_pairs=None,
    test_pairs=None,
    n_labels=None,
    positive=1,
    metric=None,
    balanced=False,
    tune_threshold=False,
):
    train_targets = np.asarray(train_targets)
    if kind == "multilabel":
        n_labels = train_targets.shape[1]
    if kind == "classify" and n_labels is None and len(train_targets):
        n_labels = int(max(train_targets.max(), np.max(test_targets))) + 1
    labels = [str(i) for i in range(n_labels or 2)]
    task = task_of(kind, labels, positive, balanced=balanced)
    tables = [
        table_of(text=list(texts))
        if pairs is None
        else table_of(text=list(texts), pair=list(pairs))
        for texts, pairs in ((train_texts, train_pairs), (test_texts, test_pairs))
    ]
    return task.baseline(
        (tables[0], train_targets),
        (tables[1], np.asarray(test_targets)),
        metric=metric or MAIN_METRIC[kind],
        as_model=balanced or tune_threshold,
    )


def table_of(**columns):
    """A table of these columns, empty texts and none at all included."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if not rows:
        return table_of(**{name: ["x"] for name in columns}).select([])
    return read(rows, need=tuple(columns), split=False, invalid="keep").test


def section(judgement, title):
    """The section of a judgement with this title."""
    return next(each for each in judgement.sections if each.title == title)
