"""What arrives: a model and a batch. What leaves: a loss as (sum, count), which is all that the
training loop asks for.

Sums and counts, never means, so that accumulating eight small batches, or training on eight
devices, gives the gradient of one big batch.
"""

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from langue.errors import SettingsError
from langue.statistics import metrics

Metrics = metrics.Metrics
LOSS = "loss"  # what a checkpoint can be best in beside the objective's metrics


@dataclass(frozen=True)
class Outcome:
    """One batch, passed forward."""

    loss: Tensor  # summed
    count: float  # what it is summed over
    outputs: Any = None  # what `train_metric` needs of the batch to say how well it was answered
    # how much of the loss is of other things than `primary_metric`; None: nothing
    aux_loss: Tensor | None = None


def check_best(best: str, metrics: Sequence[str], of: str) -> None:
    """SettingsError where a checkpoint cannot be best in this: it is neither LOSS nor one of the
    metrics of `of`."""
    known = (LOSS, *metrics)
    if best in known:
        return
    near = difflib.get_close_matches(str(best), known, 1, 0.6)
    question = f"did you mean {near[0]}? " if near else ""
    raise SettingsError(
        f"train.best = {best!r} is no metric of {of}", do=f"{question}known: {', '.join(known)}"
    )


class Objective(ABC):
    """What a model is trained for."""

    name: ClassVar[str]
    primary_metric: str  # the metric that training steps log and the curve shows
    best: str  # what the best checkpoint is best in: a metric, or LOSS

    @abstractmethod
    def forward(self, model: nn.Module, batch: Any) -> Outcome:
        """Run the model on a batch."""

    @abstractmethod
    def train_metric(self, outcomes: list[Outcome], loss: float) -> float | None:
        """`primary_metric` over the batches of one training step, whose mean loss, without what is
        `aux_loss`, was `loss`."""

    @abstractmethod
    def evaluate(
        self, model: nn.Module, dev: Any, *, device: torch.device, dtype: torch.dtype
    ) -> tuple[Metrics, float | None]:
        """The metrics and the mean loss on held-out data; the model is left in the mode it was
        in."""

    def label_of(self, metric: str) -> str | None:
        """The label that a metric is of, where it is of one among several."""
        return None

    def score(self, found: Metrics, loss: float | None) -> float:
        """How good an evaluation was in `best`: higher is better."""
        value = loss if self.best == LOSS else found[self.best]
        if self.best in metrics.LOWER_IS_BETTER:
            return -math.inf if value is None else -value
        # an undefined metric (a constant prediction's) is worse than any
        return -1.0 if value is None else value
