"""What arrives: texts (or pairs) with a number each. What leaves: a number for every text."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from langue.errors import DataError
from langue.settings.sections import TaskSettings
from langue.tasks import metrics
from langue.tasks.objective import Metrics
from langue.tasks.task import Task

if TYPE_CHECKING:
    from langue.text.read.source import Table

LARGEST = 1e18  # of a score: squares of such are still float32's
SCALES = 60  # powers of two: a million millions of millions


class Regress(Task):
    """One score a text, by least squares.

    The network is trained on scores less their mean over a power of two near their standard
    deviation, so that it learns as fast whatever they are scores of; what is saved gives the scores
    themselves (`rescale_head`).
    """

    name = "regress"
    need = ("text", "score")
    target = "score"
    primary_metric = "pearson"
    best = "pearson"
    n_outputs = 1

    def __init__(self, settings: TaskSettings, mean: float = 0.0, spread: float = 1.0) -> None:
        self.settings = settings
        self._mean = mean
        self.spread = spread

    @property
    def mean(self) -> float:
        """Without a bias, as heads of the last token are published, there is nothing to fold a mean
        into."""
        return 0.0 if self.settings.pooling == "last" else self._mean

    @classmethod
    def fit(cls, train: "Table", settings: TaskSettings) -> Self:
        scores = cls(settings).targets(train)
        if len(scores) and float(scores.min()) == float(scores.max()):
            raise DataError(
                f"every training row has the score {float(scores[0]):g}",
                where=train.origin,
                do="there is nothing to learn; give rows whose scores differ",
            )
        wide = scores.astype(np.float64)
        exponent = min(max(round(math.log2(wide.std())), -SCALES), SCALES)
        return cls(settings, float(np.float32(wide.mean())), 2.0**exponent)

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Self:
        return cls(TaskSettings(**saved["settings"]))

    def to_dict(self) -> dict[str, Any]:
        return {"settings": self.settings.model_dump()}

    def published(self) -> dict[str, Any]:
        return {"id2label": {"0": "score"}, "label2id": {"score": 0}, "problem_type": "regression"}

    @classmethod
    def read_target(cls, value: Any, settings: TaskSettings, where: Callable[[], str]) -> Any:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if isinstance(value, bool) or not abs(number) <= LARGEST:  # nan is not, either
            large = not isinstance(value, bool) and abs(number) > LARGEST
            raise DataError(
                f"the score {value!r} is"
                f" {f'beyond {LARGEST:g}, the largest' if large else 'not a number'}",
                where=where(),
                do="correct it or take it out (in training: data.invalid=drop)",
            )
        return number

    def known_target(self, target: Any, where: Callable[[], str]) -> Any:
        return np.float32(target)

    def loss(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, float]:
        """Squared error, of scores as the network is trained on them."""
        aims = (targets - self.mean) / self.spread
        return (outputs.float().squeeze(-1) - aims).square().sum(), float(len(targets))

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

    def metrics(self, targets: NDArray[Any], predictions: NDArray[np.float32]) -> Metrics:
        return metrics.regression(targets, predictions[:, 0])

    def metric_names(self) -> list[str]:
        return list(self.metrics(np.zeros(1), np.zeros((1, 1), np.float32)))

    def default_best(self) -> str:
        return "pearson"

    def show(self, prediction: NDArray[np.float32], top: int | None) -> list[dict[str, Any]]:
        return [{"label": "score", "score": float(prediction[0])}]

    def balance(self, targets: NDArray[Any]) -> dict[str, float]:
        low, middle, high = (float(q) for q in np.quantile(targets, (0, 0.5, 1)))
        return {"smallest": low, "median": middle, "largest": high}
