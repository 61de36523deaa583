"""What arrives: texts (or pairs) with a label each, or any number of labels.
What leaves: a probability for every label."""

import difflib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from langue.errors import DataError, SettingsError
from langue.settings.sections import TaskSettings
from langue.tasks import metrics
from langue.tasks.objective import LOSS, Metrics
from langue.tasks.task import Task
from langue.text.read.parse import is_missing
from langue.text.read.split import parted

if TYPE_CHECKING:
    from langue.text.read.source import Table


NOUGHTS_AND_ONES = {"0", "1", "0.0", "1.0", "False", "True"}


class Classify(Task):
    """Binary, multi-class or (`task.multi_label`) multi-label classification."""

    name = "classify"
    need = ("text", "label")
    target = "label"
    primary_metric = "accuracy"
    best = "accuracy"

    def __init__(
        self,
        labels: list[str],
        settings: TaskSettings,
        weights: list[float] | None = None,
        positive: str | None = None,
    ) -> None:
        """positive: of two labels, the one that precision, recall and F1 are of; None: the
        second."""
        self.labels = labels
        self.settings = settings
        self.weights = weights
        # with several labels: the probability from which on one is given
        self.threshold = metrics.THRESHOLD
        self.index = {label: i for i, label in enumerate(labels)}
        self.positive: str | None = None
        if len(labels) == 2 and not settings.multi_label:
            self.positive = labels[1] if positive is None else labels[self.index[positive]]
        self._notes: list[str] = []
        if settings.multi_label:  # where accuracy asks for all of a text's labels at once
            self.primary_metric = "f1_micro"
            self.best = "f1_micro"

    @classmethod
    def fit(cls, train: "Table", settings: TaskSettings) -> Self:
        raw = cls.read_targets(train, settings)
        found: set[str] = set().union(*raw) if settings.multi_label else set(raw)
        if len(found) < 2 and not settings.multi_label or not found:
            only = next(iter(found), None)
            raise DataError(
                (
                    f"every training row has the label {only!r}"
                    if found
                    else "no training row has a label"
                ),
                where=train.origin,
                do="there is nothing to tell apart; give rows of at least two labels",
            )
        if len(found) > 100 and len(found) > len(train) / 2:
            raise DataError(
                f"{len(found)} different labels in {len(train)} rows",
                where=train.origin,
                do=(
                    "is the label column right? map it with --columns label=NAME, or use --task"
                    " regress for numbers"
                ),
            )
        if (
            settings.multi_label
            and found <= NOUGHTS_AND_ONES
            and all(len(labels) != 1 for labels in raw)
        ):
            where = train.where(next(row for row, labels in enumerate(raw) if labels))
            what = "the labels are noughts and ones by their place"
            raise DataError(what, where=where, do='give their names: ["a", "c"], or a|c')
        notes = [] if settings.multi_label else _unparted(raw, settings, train.origin)
        labels = _ordered(found)
        positive = _positive(raw, labels, settings, train.origin)
        task = cls(labels, settings, positive=positive)
        task._notes = notes
        if settings.class_weights == "balanced":
            task.weights = task._balanced(task.targets(train))
        return task

    def _balanced(self, targets: NDArray[Any]) -> list[float]:
        """The weight of each label. Of one label a text: each label's rows weigh as much together
        as another's (as scikit-learn's `balanced`). Of several: a label's presence weighs as much
        as its absence, negatives/positives.
        """
        if self.settings.multi_label:
            present = targets.sum(axis=0)
            absent = len(targets) - present
            weights = np.maximum(absent, 1) / np.maximum(present, 1)
        else:
            counts = np.bincount(targets, minlength=len(self.labels))
            weights = counts.sum() / (len(counts) * np.maximum(counts, 1))
        return [float(weight) for weight in weights]

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Self:
        settings = TaskSettings(**saved["settings"])
        task = cls(list(saved["labels"]), settings, saved.get("weights"), saved.get("positive"))
        threshold = saved.get("threshold", metrics.THRESHOLD)
        if (
            isinstance(threshold, bool)
            or not isinstance(threshold, (int, float))
            or not 0 <= threshold <= 1
        ):
            raise ValueError(f"threshold = {threshold!r} is no probability")
        task.threshold = float(threshold)
        return task

    def to_dict(self) -> dict[str, Any]:
        saved: dict[str, Any] = {
            "labels": self.labels,
            "settings": self.settings.model_dump(),
            "weights": self.weights,
            "positive": self.positive,
        }
        return saved | ({"threshold": self.threshold} if self.settings.multi_label else {})

    def published(self) -> dict[str, Any]:
        return {
            "id2label": {str(i): label for i, label in enumerate(self.labels)},
            "label2id": self.index,
            "problem_type": (
                f"{'multi' if self.settings.multi_label else 'single'}_label_classification"
            ),
        }

    @property
    def n_outputs(self) -> int:
        return len(self.labels)

    @classmethod
    def read_target(cls, value: Any, settings: TaskSettings, where: Callable[[], str]) -> Any:
        if settings.multi_label:
            return _several(value, where)
        if isinstance(value, (list, tuple)):
            raise DataError("the label is a list", where=where(), do="set task.multi_label=true")
        if isinstance(value, dict):
            raise DataError(
                "the label is an object",
                where=where(),
                do="give a label's name, or a number, as it is",
            )
        if is_missing(value):
            raise DataError(
                "the label is empty",
                where=where(),
                do="fill it in or take it out (in training: data.invalid=drop)",
            )
        return str(value)

    def known_target(self, target: Any, where: Callable[[], str]) -> Any:
        for label in target if self.settings.multi_label else [target]:
            if label not in self.index:
                raise DataError(
                    f"the label {label!r} was not seen in training",
                    where=where(),
                    do=(
                        f"known labels: {', '.join(self.labels[:12])}; correct it or take it out"
                        " (in training: data.invalid=drop)"
                    ),
                )
        if not self.settings.multi_label:
            return self.index[target]
        many = np.zeros(len(self.labels), np.float32)
        many[[self.index[label] for label in target]] = 1
        return many

    def loss(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, float]:
        """Cross-entropy with label smoothing (Szegedy et al. 2016); with several labels, binary
        cross-entropy of each.

        A class weight multiplies the loss of a whole row, or, with several labels, of a label that
        is present. It never changes the smoothed target, as `weight` and `pos_weight` of PyTorch do
        together with smoothing. The count is the sum of the weights, so that the mean is a weighted
        mean however the rows are divided into batches.
        """
        outputs = outputs.float()
        smoothing = self.settings.label_smoothing
        weights = None
        if self.weights is not None:
            weights = torch.tensor(self.weights).to(outputs.device, non_blocking=True)
        if self.settings.multi_label:
            soft = targets * (1 - smoothing) + smoothing / 2
            if weights is None:
                loss = F.binary_cross_entropy_with_logits(outputs, soft, reduction="sum")
                return loss, float(targets.numel())
            weight = torch.where(targets > 0, weights, 1.0)  # (N, n_outputs)
            loss = F.binary_cross_entropy_with_logits(outputs, soft, weight=weight, reduction="sum")
            return loss, float(weight.sum())
        if weights is None:
            loss = F.cross_entropy(outputs, targets, label_smoothing=smoothing, reduction="sum")
            return loss, float(len(targets))
        # (N,)
        losses = F.cross_entropy(outputs, targets, label_smoothing=smoothing, reduction="none")
        weight = weights[targets]  # (N,)
        return (losses * weight).sum(), float(weight.sum())

    def predict(self, outputs: Tensor) -> NDArray[np.float32]:
        outputs = outputs.float()
        probabilities = outputs.sigmoid() if self.settings.multi_label else outputs.softmax(-1)
        array: NDArray[np.float32] = probabilities.cpu().numpy()
        return array

    def metrics(self, targets: NDArray[Any], predictions: NDArray[np.float32]) -> Metrics:
        if self.settings.multi_label:
            return metrics.multilabel(targets, predictions, self.threshold)
        positive = 1 if self.positive is None else self.index[self.positive]
        return metrics.classification(targets, predictions, len(self.labels), positive)

    def label_of(self, metric: str) -> str | None:
        return self.positive if metric in metrics.OF_POSITIVE else None

    def notes(self) -> list[str]:
        return self._notes

    def metric_names(self) -> list[str]:
        one = self.predict(torch.zeros(1, self.n_outputs))
        target = np.zeros_like(one) if self.settings.multi_label else np.zeros(1, np.int64)
        return list(self.metrics(target, one))

    def default_best(self) -> str:
        """Macro F1 where rare labels are to weigh as much as frequent ones: accuracy would reward
        the frequent."""
        if self.settings.class_weights == "balanced":
            return "f1_macro"
        return "f1_micro" if self.settings.multi_label else "accuracy"

    @property
    def settles_on_dev(self) -> bool:
        return bool(self.settings.multi_label)

    def settle_on_dev(self, targets: NDArray[Any], predictions: NDArray[np.float32]) -> None:
        """Choose the threshold that is best on dev in what the checkpoint was chosen by."""
        by = "f1_micro" if self.best == LOSS else self.best
        self.threshold = metrics.best_threshold(targets, predictions, by)

    def answer(self, prediction: NDArray[np.float32]) -> Any:
        if not self.settings.multi_label:
            return super().answer(prediction)
        given = int((prediction.astype(np.float64) >= self.threshold).sum())
        return self.show(prediction, given)

    def show(self, prediction: NDArray[np.float32], top: int | None) -> list[dict[str, Any]]:
        order = np.argsort(-prediction, kind="stable")
        return [{"label": self.labels[i], "score": float(prediction[i])} for i in order[:top]]

    def balance(self, targets: NDArray[Any]) -> dict[str, float]:
        counts = (
            targets.sum(0)
            if self.settings.multi_label
            else np.bincount(targets, minlength=len(self.labels))
        )
        return {label: int(count) for label, count in zip(self.labels, counts, strict=True)}


def _several(value: Any, where: Callable[[], str]) -> list[str]:
    """A list of labels; a string (from a CSV) names several with `|` between them."""
    if isinstance(value, str):
        bare = value.strip()
        # as pandas writes lists
        if bare[:1] == "[" and bare[-1:] == "]" and any(mark in bare for mark in ",'\""):
            raise DataError(
                f"the labels {value!r} are a list written as text",
                where=where(),
                do="write them as a|b",
            )
        value = parted(value)
    if isinstance(value, (list, tuple)):
        if any(isinstance(part, (list, tuple, dict)) for part in value):
            raise DataError(
                "a label is a list or an object", where=where(), do='write names: ["a", "b"]'
            )
        return [str(part) for part in value if not is_missing(part)]
    if is_missing(value):
        return []
    raise DataError(
        f"{value!r} is not a list of labels", where=where(), do="write them as a list or 'a|b'"
    )


def _positive(
    raw: Sequence[Any], labels: list[str], settings: TaskSettings, origin: str
) -> str | None:
    """Of two labels the one that precision, recall and F1 are of: as set, else the rarer, else the
    second."""
    chosen = settings.positive
    binary = len(labels) == 2 and not settings.multi_label
    if chosen is None:
        counts = Counter(raw) if binary else None
        return labels[0] if counts and counts[labels[0]] < counts[labels[1]] else None
    if not binary:
        several = "a text may have several" if settings.multi_label else f"there are {len(labels)}"
        raise SettingsError(
            f"task.positive is for two labels, one a text; here {several}",
            where=origin,
            do="leave it out: the report has precision, recall and F1 of every label",
        )
    if chosen not in labels:
        near = difflib.get_close_matches(chosen, labels, 1, 0.6)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise SettingsError(
            f"task.positive = {chosen!r} is no label of the training rows",
            where=origin,
            do=f"{guess}known: {', '.join(labels)}",
        )
    return chosen


def _unparted(raw: Sequence[str], settings: TaskSettings, origin: str) -> list[str]:
    """What is said of labels such as `a|b` where each is taken as one name. SettingsError, unless
    that is wished (`task.multi_label = false`), where their parts are found in other labels too."""
    barred = [label for label in raw if "|" in label]
    if not barred or settings.multi_label is False:
        return []
    holders = Counter(part for label in set(raw) for part in _parts(label))
    shared = [label for label in barred if any(holders[part] > 1 for part in _parts(label))]
    if shared:
        raise SettingsError(
            f"{len(barred):,} of {len(raw):,} rows have a label such as {shared[0]!r}, parts of"
            " which are in other labels too",
            where=origin,
            do=(
                "where a text has several labels: task.multi_label=true; where each is one name:"
                " task.multi_label=false"
            ),
        )
    return [
        f"train: {len(barred):,} rows have a label such as {barred[0]!r}, which is taken as one"
        " name; where a text has several labels: task.multi_label=true"
    ]


def _parts(label: str) -> set[str]:
    return {*parted(label)} - {""}


def _ordered(labels: set[str]) -> list[str]:
    """Numbers by value, words by the alphabet."""
    try:
        numbers = {label: float(label) for label in labels}
    except ValueError:
        return sorted(labels)
    if any(math.isnan(number) for number in numbers.values()):  # which has no place among them
        return sorted(labels)
    return sorted(labels, key=lambda label: (numbers[label], label))
