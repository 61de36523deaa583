"""Text classification: takes texts (or pairs of texts), each with one label or any number of
labels; returns a probability for every label.
"""

import difflib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from torch import Tensor
from torch.nn import functional as F

from langue.data.batch import Batch
from langue.errors import DataError, SettingsError
from langue.hub.family import Family
from langue.statistics import bag_of_words
from langue.statistics import metrics as m
from langue.statistics.compare import Systems, systems_of
from langue.statistics.intervals import RESAMPLES
from langue.statistics.labels import systems_of_labels, systems_of_several
from langue.tasks.columns import PAIR_SYNONYMS, TEXT_SYNONYMS, Columns
from langue.tasks.judge_labels import judge_labels, judge_several_labels
from langue.tasks.judgement import Examples, Judgement
from langue.tasks.labels import alike, conflicting, look, spellings
from langue.tasks.objective import LOSS
from langue.tasks.pooled import PooledOptions, PooledTask, published_outputs, worst_mistakes
from langue.tasks.task import Baseline
from langue.text.read.parse import is_missing
from langue.text.read.split import parted

if TYPE_CHECKING:
    from langue.text.read.source import Table


NOUGHTS_AND_ONES = {"0", "1", "0.0", "1.0", "False", "True"}


def _label_name(value: Any) -> Any:
    """Return a label as the data reader spells it: the number 1 in a recipe is the label "1"."""
    return str(value) if isinstance(value, (bool, int, float)) else value


class ClassifyOptions(PooledOptions):
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="label smoothing: fraction of each target that is spread over all labels",
    )
    class_weights: Literal["none", "balanced"] = Field(
        default="none",
        description=(
            "balanced: all labels have the same total weight; for multi-label data,"
            " presence and absence of each label have the same total weight"
        ),
    )
    multi_label: bool | None = Field(
        default=None,
        description=(
            "multi-label classification, with labels written a|b; none: single-label,"
            " and data that looks like multi-label is an error; false: single-label in"
            " any case"
        ),
    )
    merge_labels: bool | None = Field(
        default=None,
        description=(
            "merge labels that differ only in whitespace, case, Unicode form or"
            " invisible characters, into the most frequent spelling; none: keep them"
            " apart"
        ),
    )
    positive: Annotated[str | None, BeforeValidator(_label_name)] = Field(
        default=None,
        description=(
            "with two labels, the one that precision, recall and F1 refer to; none: the"
            " rarer one in training"
        ),
        json_schema_extra={"verbatim": True},
    )


@dataclass(frozen=True)
class LabelBaseline(Baseline):
    threshold: float  # multi-label: minimum probability at which a label is predicted


class Classify(PooledTask):
    """Binary, multi-class or (`task.multi_label`) multi-label classification."""

    name = "classify"
    result = "labels"
    Options = ClassifyOptions
    columns = Columns(
        required=("text", "label"),
        optional=("pair",),
        target="label",
        synonyms={
            "text": TEXT_SYNONYMS,
            "pair": PAIR_SYNONYMS,
            "label": (
                *("sentiment", "class", "category", "target", "labels"),
                *("y", "topic", "intent"),
            ),
        },
    )
    settings: ClassifyOptions
    primary_metric = "accuracy"
    best = "accuracy"
    main_metric = "accuracy"

    def __init__(
        self,
        labels: list[str],
        settings: ClassifyOptions,
        weights: list[float] | None = None,
        positive: str | None = None,
    ) -> None:
        """positive: of two labels, the one that precision, recall and F1 refer to; None: the
        second.
        """
        self.labels = labels
        self.settings = settings
        self.weights = weights
        # multi-label: minimum probability at which a label is predicted
        self.threshold = m.THRESHOLD
        self.index = {label: i for i, label in enumerate(labels)}
        self.by_look = spellings(labels)
        self.positive: str | None = None
        if len(labels) == 2 and not settings.multi_label:
            self.positive = labels[1] if positive is None else labels[self.index[positive]]
        self._notes: list[str] = []
        # because multi-label accuracy requires all labels of a text to be right at once
        if settings.multi_label:
            self.primary_metric = "f1_micro"
            self.best = "f1_micro"
            self.main_metric = "f1_micro"

    @classmethod
    def fit(cls, train: "Table", options: ClassifyOptions) -> Self:
        settings = options
        raw = cls.read_targets(train, settings)
        named = [label for each in raw for label in each] if settings.multi_label else raw
        if settings.merge_labels:
            spelt = spellings(named)
            if settings.multi_label:
                raw = [[spelt[look(label)] for label in labels] for labels in raw]
            else:
                raw = [spelt[look(label)] for label in raw]
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
                do="give rows of at least two labels, and at least two rows of each",
            )
        if len(found) > 100 and len(found) > len(train) / 2:
            raise DataError(
                f"{len(found)} different labels in {len(train)} rows",
                where=train.origin,
                do=(
                    "is the label column right? map it with --columns label=NAME, or for numbers"
                    " use --task regress --columns score=label"
                ),
            )
        if (
            settings.multi_label
            and found <= NOUGHTS_AND_ONES
            and all(len(labels) != 1 for labels in raw)
        ):
            where = train.where(next(row for row, labels in enumerate(raw) if labels))
            what = "the labels look like one-hot (multi-hot) vectors"
            raise DataError(what, where=where, do='give their names: ["a", "c"], or a|c')
        notes = [] if settings.multi_label else _notes_on_bars(raw, settings, train.origin)
        if not settings.merge_labels and (told := alike(named)):
            notes.append(told)
        labels = _ordered(found)
        positive = _positive(raw, labels, settings, train.origin)
        task = cls(labels, settings, positive=positive)
        task._notes = notes
        if settings.class_weights == "balanced":
            task.weights = task._balanced(task.golds(train))
        return task

    def _balanced(self, targets: NDArray[Any]) -> list[float]:
        """Return the weight of each label.

        Single-label: the rows of each label have the same total weight (scikit-learn's `balanced`).
        Multi-label: negatives / positives, which gives the presence of a label the same total
        weight as its absence.
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
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        settings = cls.options_of(saved["settings"])
        task = cls(list(saved["labels"]), settings, saved.get("weights"), saved.get("positive"))
        threshold = saved.get("threshold", m.THRESHOLD)
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

    @classmethod
    def from_published(cls, published: Mapping[str, Any], family: Family) -> Self | None:
        found = published_outputs(published, family)
        if found is None:
            return None
        pooling, names, kind = found
        if kind == "regression" or (kind is None and len(names) == 1):
            return None
        several = kind == "multi_label_classification"
        options = ClassifyOptions.model_validate({"pooling": pooling, "multi_label": several})
        return cls(names, options)

    def has_outputs_of(self, saved: Mapping[str, Any]) -> bool:
        return super().has_outputs_of(saved) and saved.get("labels") == self.labels

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
    def read_target(cls, value: Any, options: ClassifyOptions, where: Callable[[], str]) -> Any:
        if options.multi_label:
            return _label_list(value, where)
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
        places = []
        for label in target if self.settings.multi_label else [target]:
            spelt = self.by_look.get(look(label), label) if self.settings.merge_labels else label
            if spelt not in self.index:
                near = self.by_look.get(look(label))
                merged = "" if near is None else f"as {near!r} with task.merge_labels=true, or "
                raise DataError(
                    f"the label {label!r} was not seen in training",
                    where=where(),
                    do=(
                        f"known labels: {', '.join(self.labels[:12])}; {merged}correct it or"
                        " take it out (in training: data.invalid=drop)"
                    ),
                )
            places.append(self.index[spelt])
        if not self.settings.multi_label:
            return places[0]
        multi_hot = np.zeros(len(self.labels), np.float32)
        multi_hot[places] = 1
        return multi_hot

    @classmethod
    def conflicts(
        cls, tables: Sequence["Table"], options: ClassifyOptions
    ) -> dict[str, Counter[Any]]:
        if options.multi_label:
            return {}
        texts: list[str] = []
        labels: list[str] = []
        for table in tables:
            texts += cls.texts(table)
            labels += [str(value) for value in cls.raw_targets(table)]
        if options.merge_labels:
            labels = [look(label) for label in labels]
        return conflicting(texts, labels)

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
        """Return the summed cross-entropy with label smoothing (Szegedy et al. 2016) and its count;
        multi-label: the binary cross-entropy of every label.

        A class weight multiplies the loss of a whole row, or, multi-label, the loss of a label that
        is present. Unlike PyTorch's `weight` and `pos_weight` combined with smoothing, it never
        changes the smoothed target. The count is the sum of the weights, so that the mean is the
        same weighted mean however the rows are divided into batches.
        """
        outputs = outputs.float()
        targets = batch.targets
        assert targets is not None
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

    @property
    def _positive_index(self) -> int:
        return 1 if self.positive is None else self.index[self.positive]

    def measure(
        self, golds: Any, predictions: NDArray[Any], threshold: float | None = None
    ) -> m.Measure:
        """Return the measure of all metrics.

        threshold: multi-label, the minimum probability at which a label is predicted; None: the
        task's own threshold.
        """
        if self.settings.multi_label:
            chosen = self.threshold if threshold is None else threshold
            return m.multilabel_measure(golds, predictions, chosen)
        return m.classification_measure(golds, predictions, len(self.labels), self._positive_index)

    def label_of(self, metric: str) -> str | None:
        return self.positive if metric in m.OF_POSITIVE else None

    def notes(self) -> list[str]:
        return self._notes

    def metric_names(self) -> list[str]:
        one = self.predict(torch.zeros(1, self.n_outputs))
        gold = np.zeros_like(one) if self.settings.multi_label else np.zeros(1, np.int64)
        return list(self.metrics(gold, one))

    def default_best(self) -> str:
        """Return macro F1 if the classes are balanced, since accuracy would reward the frequent
        labels; otherwise accuracy, or micro F1 for multi-label data.
        """
        if self.settings.class_weights == "balanced":
            return "f1_macro"
        return "f1_micro" if self.settings.multi_label else "accuracy"

    @property
    def settles_on_dev(self) -> bool:
        return bool(self.settings.multi_label)

    def settle_on_dev(self, golds: NDArray[Any], predictions: NDArray[np.float32]) -> None:
        """Choose the threshold with the best value on dev of the metric that selected the
        checkpoint.
        """
        by = "f1_micro" if self.best == LOSS else self.best
        self.threshold = m.best_threshold(golds, predictions, by)

    def answer(self, prediction: NDArray[np.float32]) -> Any:
        if not self.settings.multi_label:
            return super().answer(prediction)
        given = int((prediction.astype(np.float64) >= self.threshold).sum())
        return self.show(prediction, given)

    def show(self, prediction: NDArray[np.float32], top: int | None) -> list[dict[str, Any]]:
        order = np.argsort(-prediction, kind="stable")
        return [{"label": self.labels[i], "score": float(prediction[i])} for i in order[:top]]

    def balance(self, golds: Any) -> dict[str, float]:
        targets = np.asarray(golds)
        counts = (
            targets.sum(0)
            if self.settings.multi_label
            else np.bincount(targets, minlength=len(self.labels))
        )
        return {label: int(count) for label, count in zip(self.labels, counts, strict=True)}

    def show_target(self, gold: Any) -> str:
        if not self.settings.multi_label:
            return self.labels[int(gold)]
        return " | ".join(np.array(self.labels)[np.asarray(gold) == 1]) or "(none)"

    def facts(self) -> dict[str, Any]:
        return super().facts() | ({} if self.positive is None else {"positive": self.positive})

    def remarks(self) -> list[str]:
        if self.positive is None:
            return []
        label = " ".join(self.positive.split())
        return [f"precision, recall and F1 are of the label {label}; task.positive names another"]

    # --- judging ---

    def judge(
        self,
        golds: Any,
        predictions: NDArray[Any],
        main: str | None = None,
        *,
        seed: int = 0,
        resamples: int = RESAMPLES,
    ) -> Judgement:
        chosen = main or self.main_metric
        if self.settings.multi_label:
            judged = partial(judge_several_labels, threshold=self.threshold)
        else:
            judged = partial(judge_labels, positive=self._positive_index)
        return judged(golds, predictions, self.labels, main=chosen, resamples=resamples, seed=seed)

    def mistakes(
        self, table: "Table", golds: Any, predictions: NDArray[Any], limit: int = 20
    ) -> Examples | None:
        """Return the worst mistakes: the highest confidence in a wrong label, or, multi-label, in a
        wrong decision about one label.
        """
        true = np.asarray(golds)
        said = np.asarray(predictions, dtype=np.float64)
        if self.settings.multi_label:
            given = said >= self.threshold
            wrong_at = given != true.astype(bool)
            badness = np.where(wrong_at, np.where(given, said, 1 - said), 0.0).max(axis=1)
            wrong = wrong_at.any(axis=1)
            names = [
                (self._names(t), self._names(p)) for t, p in zip(true == 1, given, strict=True)
            ]
        else:
            picked = said.argmax(axis=1)
            badness = said.max(axis=1)
            wrong = picked != true
            names = [(self.labels[t], self.labels[p]) for t, p in zip(true, picked, strict=True)]
        return Examples(
            title="Worst mistakes",
            columns=("true", "predicted", "confidence"),
            rows=worst_mistakes(
                table, badness, wrong, limit, lambda row: (*names[row], float(badness[row]))
            ),
            shares=(2,),
            note=(
                "The surest of its wrong answers first: a good place to look for wrong labels, too."
            ),
        )

    def _names(self, chosen: NDArray[np.bool_]) -> str:
        return ", ".join(self.labels[i] for i in np.flatnonzero(chosen).tolist()) or "(none)"

    def baseline(
        self,
        train: tuple["Table", Any],
        test: tuple["Table", Any],
        *,
        metric: str,
        as_model: bool = True,
    ) -> LabelBaseline:
        """Return TF-IDF with logistic regression: strong on topics and sentiment, and trained in
        seconds.
        """
        balanced = as_model and self.settings.class_weights == "balanced"
        weight = "balanced" if balanced else None
        several = self.settings.multi_label
        tuned = as_model and several
        sign = -1 if metric in m.LOWER_IS_BETTER else 1

        def quality(true: NDArray[Any], said: NDArray[Any]) -> tuple[float | None, float]:
            threshold = m.best_threshold(true, said, metric) if tuned else m.THRESHOLD
            value = m.plain(self.measure(true, said, threshold), len(true))[metric]
            return None if value is None else sign * value, threshold

        found = bag_of_words.answer(
            bag_of_words.LogisticOfEach(weight)
            if several
            else bag_of_words.Logistic(len(self.labels), weight),
            quality,
            *(train[0].column("text"), train[1], test[0].column("text")),
            train_pairs=train[0].column_if_there("pair"),
            test_pairs=test[0].column_if_there("pair"),
        )
        threshold = m.THRESHOLD if found.settled is None else found.settled
        golds = np.asarray(test[1])
        return LabelBaseline(
            name=found.name + (", balanced" if balanced else ""),
            metrics=m.plain(self.measure(golds, found.predictions, threshold), len(golds)),
            predictions=found.predictions,
            seconds=found.seconds,
            threshold=threshold,
        )

    def beside(self, name: str, golds: Any, predictions: Any) -> LabelBaseline:
        metrics = self.metrics(golds, predictions)
        return LabelBaseline(name, metrics, predictions, 0.0, self.threshold)

    def systems(
        self, golds: Any, predictions: NDArray[Any], baseline: Baseline, metric: str
    ) -> Systems:
        """Return model and baseline in the form that paired tests resample.

        Examples with the same labels and the same predictions are grouped, so that few groups have
        to be drawn.
        """
        if self.settings.multi_label:
            assert isinstance(baseline, LabelBaseline)
            several, of_model = m.check_multilabel(golds, predictions)
            _, of_baseline = m.check_multilabel(golds, baseline.predictions)
            given = of_model >= self.threshold, of_baseline >= baseline.threshold
            return systems_of_several(several, *given, metric)
        n_labels = len(self.labels)
        true, of_model = m.check_classification(golds, predictions, n_labels)
        _, of_baseline = m.check_classification(golds, baseline.predictions, n_labels)
        if metric != "calibration_error":
            answers = of_model.argmax(axis=1), of_baseline.argmax(axis=1)
            return systems_of_labels(true, *answers, n_labels, self._positive_index, metric)
        # calibration uses the probabilities, which make each example a group of its own
        both = np.concatenate([true, true]), np.concatenate([of_model, of_baseline])
        return systems_of(
            self.measure(true, of_model),
            self.measure(true, of_baseline),
            self.measure(*both),
            len(true),
        )


def _label_list(value: Any, where: Callable[[], str]) -> list[str]:
    """Return the labels of a row; a string (from a CSV) separates them by `|`."""
    if isinstance(value, str):
        bare = value.strip()
        # the way pandas writes lists
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
    raw: Sequence[Any], labels: list[str], settings: ClassifyOptions, origin: str
) -> str | None:
    """Return which of two labels precision, recall and F1 refer to: the one set, else the rarer,
    else None (the second).
    """
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


def _notes_on_bars(raw: Sequence[str], settings: ClassifyOptions, origin: str) -> list[str]:
    """Return notes on labels such as `a|b` that are taken as one name.

    Raises SettingsError if parts of them also occur in other labels, unless `task.multi_label =
    false`.
    """
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
    """Sort labels: numerically if all are numbers, otherwise alphabetically."""
    try:
        numbers = {label: float(label) for label in labels}
    except ValueError:
        return sorted(labels)
    # NaN has no place in a numerical order
    if any(math.isnan(number) for number in numbers.values()):
        return sorted(labels)
    return sorted(labels, key=lambda label: (numbers[label], label))
