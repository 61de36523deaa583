"""Regression: takes texts (or pairs of texts), each with a number; returns a number for every
text.
"""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from langue.data.batch import Batch
from langue.errors import DataError
from langue.hub.family import Family
from langue.statistics import bag_of_words
from langue.statistics import metrics as m
from langue.statistics.compare import Systems, systems_of_scores
from langue.statistics.intervals import RESAMPLES, bootstrap
from langue.tasks.columns import PAIR_SYNONYMS, TEXT_SYNONYMS, Columns
from langue.tasks.judgement import Examples, Judgement, scatter
from langue.tasks.pooled import PooledOptions, PooledTask, published_outputs, worst_mistakes
from langue.tasks.task import Baseline
from langue.text.numerals import value_of

if TYPE_CHECKING:
    from langue.text.read.source import Table

LARGEST = 1e18  # largest score, whose square is still a float32
SCALES = 60  # largest exponent of the power of two by which scores are scaled


class Regress(PooledTask):
    """Least-squares regression with one score for each text.

    The network is trained on scores minus their mean, divided by a power of two near their standard
    deviation, so that it learns at the same speed on any scale; the saved weights give the original
    scores (`rescale_head`).
    """

    name = "regress"
    result = "number"
    Options = PooledOptions
    columns = Columns(
        required=("text", "score"),
        optional=("pair",),
        target="score",
        synonyms={
            "text": TEXT_SYNONYMS,
            "pair": PAIR_SYNONYMS,
            "score": ("rating", "stars", "label", "target", "similarity", "y"),
        },
    )
    primary_metric = "pearson"
    best = "pearson"
    main_metric = "spearman"
    n_outputs = 1

    def __init__(self, settings: PooledOptions, mean: float = 0.0, spread: float = 1.0) -> None:
        self.settings = settings
        self._mean = mean
        self.spread = spread

    @property
    def mean(self) -> float:
        """The mean that is subtracted from scores: 0 for heads on the last token, which are
        published without a bias and so have nothing to fold a mean into.
        """
        return 0.0 if self.settings.pooling == "last" else self._mean

    @classmethod
    def fit(cls, train: "Table", options: PooledOptions) -> Self:
        scores = cls(options).golds(train)
        if len(scores) and float(scores.min()) == float(scores.max()):
            raise DataError(
                f"every training row has the score {float(scores[0]):g}",
                where=train.origin,
                do="there is nothing to learn; give rows whose scores differ",
            )
        wide = scores.astype(np.float64)
        exponent = min(max(round(math.log2(wide.std())), -SCALES), SCALES)
        return cls(options, float(np.float32(wide.mean())), 2.0**exponent)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        return cls(cls.options_of(saved["settings"]))

    @classmethod
    def from_published(cls, published: Mapping[str, Any], family: Family) -> Self | None:
        found = published_outputs(published, family)
        if found is None:
            return None
        pooling, names, kind = found
        if kind == "regression" or (kind is None and len(names) == 1):
            return cls(PooledOptions.model_validate({"pooling": pooling}))
        return None

    def to_dict(self) -> dict[str, Any]:
        return {"settings": self.settings.model_dump()}

    def published(self) -> dict[str, Any]:
        return {"id2label": {"0": "score"}, "label2id": {"score": 0}, "problem_type": "regression"}

    @classmethod
    def read_target(cls, value: Any, options: PooledOptions, where: Callable[[], str]) -> Any:
        number = value_of(value)
        if number is None or not abs(number) <= LARGEST:  # NaN fails the comparison, too
            large = number is not None and abs(number) > LARGEST
            do = "correct it or take it out (in training: data.invalid=drop)"
            if number is None and value_of(value, decimal_comma=True) is not None:
                do = "where a comma is the point of all its numbers: data.decimal_comma=true"
            raise DataError(
                f"the score {value!r} is"
                f" {f'beyond {LARGEST:g}, the largest' if large else 'not a number'}",
                where=where(),
                do=do,
            )
        return number

    @classmethod
    def raw_targets(cls, table: "Table") -> list[Any]:
        return table.numbers(cls.columns.target)

    def known_target(self, target: Any, where: Callable[[], str]) -> Any:
        return np.float32(target)

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
        """Return the summed squared error of the scaled scores, and their number."""
        targets = batch.targets
        assert targets is not None
        scaled = (targets - self.mean) / self.spread
        errors = outputs.float().squeeze(-1) - scaled  # (N,)
        return errors.square().sum(), float(len(targets))

    def predict(self, outputs: Tensor) -> NDArray[np.float32]:
        array: NDArray[np.float32] = (outputs.float() * self.spread + self.mean).cpu().numpy()
        return array

    def rescale_head(self, weights: Mapping[str, Tensor], back: bool = False) -> dict[str, Tensor]:
        by = 1 / self.spread if back else self.spread
        folded = dict(weights)
        if "head.out.weight" in folded:
            folded["head.out.weight"] = folded["head.out.weight"] * by
        if (bias := folded.get("head.out.bias")) is not None:
            folded["head.out.bias"] = (bias - self.mean) * by if back else bias * by + self.mean
        return folded

    def metric_names(self) -> list[str]:
        return list(m.REGRESSION)

    def default_best(self) -> str:
        return "pearson"

    def show(self, prediction: NDArray[np.float32], top: int | None) -> list[dict[str, Any]]:
        return [{"label": "score", "score": float(prediction[0])}]

    def balance(self, golds: Any) -> dict[str, float]:
        smallest, median, largest = (float(q) for q in np.quantile(golds, (0, 0.5, 1)))
        return {"smallest score": smallest, "median score": median, "largest score": largest}

    def show_target(self, gold: Any) -> str:
        return f"{float(gold):g}"

    # --- judging ---

    def measure(self, golds: Any, predictions: Any) -> m.Measure:
        """Return the measure of all metrics; predictions: (N, 1), or scores (N,)."""
        return m.regression_measure(golds, _scores(predictions))

    def judge(
        self,
        golds: Any,
        predictions: NDArray[Any],
        main: str | None = None,
        *,
        seed: int = 0,
        resamples: int = RESAMPLES,
    ) -> Judgement:
        true, predicted = m.check_regression(golds, _scores(predictions))
        measure = self.measure(true, predicted)
        metrics = m.plain(measure, len(true))
        notes = [
            f"{whose} {true_or_said.flat[0]:g} every time, so the correlations are undefined."
            for whose, true_or_said in (
                ("The true score is", true),
                ("The model answers", predicted),
            )
            if true_or_said.min() == true_or_said.max()
        ]
        return Judgement(
            examples=len(true),
            metrics=metrics,
            intervals=bootstrap(measure, metrics, len(true), resamples, seed),
            primary_metric=main or self.main_metric,
            notes=notes,
            sections=[scatter(true, predicted, seed)],
        )

    def mistakes(
        self, table: "Table", golds: Any, predictions: NDArray[Any], limit: int = 20
    ) -> Examples | None:
        true = np.asarray(golds)
        said = np.asarray(_scores(predictions), dtype=np.float64)
        errors = np.abs(true - said)

        def values(row: int) -> tuple[str, str, float]:
            return f"{true[row]:.4g}", f"{said[row]:.4g}", float(errors[row])

        return Examples(
            title="Worst mistakes",
            columns=("true", "predicted", "error"),
            rows=worst_mistakes(table, errors, errors > 0, limit, values),
            note="The largest errors first: a good place to look for wrong scores, too.",
        )

    def baseline(
        self,
        train: tuple["Table", Any],
        test: tuple["Table", Any],
        *,
        metric: str,
        as_model: bool = True,
    ) -> Baseline:
        """Return TF-IDF with ridge regression."""
        sign = -1 if metric in m.LOWER_IS_BETTER else 1

        def quality(true: NDArray[Any], said: NDArray[Any]) -> tuple[float | None, None]:
            value = self.metrics(true, said)[metric]
            return None if value is None else sign * value, None

        found = bag_of_words.answer(
            bag_of_words.Ridge(),
            quality,
            *(train[0].column("text"), train[1], test[0].column("text")),
            train_pairs=train[0].column_if_there("pair"),
            test_pairs=test[0].column_if_there("pair"),
        )
        metrics = self.metrics(np.asarray(test[1]), found.predictions)
        return Baseline(found.name, metrics, found.predictions, found.seconds)

    def beside(self, name: str, golds: Any, predictions: Any) -> Baseline:
        return Baseline(name, self.metrics(golds, predictions), _scores(predictions), 0.0)

    def systems(
        self, golds: Any, predictions: NDArray[Any], baseline: Baseline, metric: str
    ) -> Systems:
        return systems_of_scores(golds, _scores(predictions), baseline.predictions, metric)


def _scores(predictions: Any) -> NDArray[Any]:
    """Return predictions (N, 1) or (N,) as scores (N,)."""
    array = np.asarray(predictions)
    return array[:, 0] if array.ndim == 2 else array
