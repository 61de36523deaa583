"""What arrives: texts (or pairs) with a number each. What leaves: a number for every text."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langue.errors import DataError
from langue.settings import TaskSettings
from langue.tasks import metrics
from langue.tasks.objective import Metrics
from langue.tasks.task import PooledHead, Task

if TYPE_CHECKING:
    from langue.text.source import Table

LARGEST = 1e18  # of a score: squares of such are still float32's


class Regress(Task):
    """One score a text, by least squares."""

    name = "regress"
    need = ("text", "score")
    target = "score"
    watched = "pearson"
    n_outputs = 1

    def __init__(self, settings: TaskSettings) -> None:
        self.settings = settings

    @classmethod
    def fit(cls, train: "Table", settings: TaskSettings) -> Self:
        task = cls(settings)
        scores = task.targets(train)
        if len(scores) and float(scores.min()) == float(scores.max()):
            raise DataError(
                f"every training row has the score {float(scores[0]):g}",
                where=train.origin,
                do="there is nothing to learn; give rows whose scores differ",
            )
        return task

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
            raise DataError(
                f"the score {value!r} is not a number",
                where=where(),
                do="correct it or take it out (in training: data.invalid=drop)",
            )
        return number

    def known_target(self, target: Any, where: Callable[[], str]) -> Any:
        return np.float32(target)

    def loss(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, float]:
        """Squared error."""
        return (outputs.float().squeeze(-1) - targets).square().sum(), float(len(targets))

    def predict(self, outputs: Tensor) -> NDArray[np.float32]:
        array: NDArray[np.float32] = outputs.float().cpu().numpy()
        return array

    def metrics(self, targets: NDArray[Any], predictions: NDArray[np.float32]) -> Metrics:
        return metrics.regression(targets, predictions[:, 0])

    def show(self, prediction: NDArray[np.float32], top: int | None) -> list[dict[str, Any]]:
        return [{"label": "score", "score": float(prediction[0])}]

    def prepare_head(self, head: PooledHead, targets: NDArray[Any]) -> None:
        """Start from the mean score, so that the first steps are not spent on finding it; without a bias they are."""
        bias: Tensor | None = head.out.bias
        if bias is not None:
            with torch.no_grad():
                bias.fill_(float(targets.mean()))

    def balance(self, targets: NDArray[Any]) -> dict[str, float]:
        low, middle, high = (float(q) for q in np.quantile(targets, (0, 0.5, 1)))
        return {"smallest": low, "median": middle, "largest": high}
