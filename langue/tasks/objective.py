"""The interface between a task and the training loop: takes a model and a batch; returns a loss as
(sum, count).

Sums and counts, never means, so that accumulating eight small batches, or training on eight
devices, gives the gradient of one big batch.
"""

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from langue.data.loader import BatchSource
from langue.errors import SettingsError
from langue.model.config import ModelConfig
from langue.settings.sections import Section, Settings
from langue.statistics import metrics

Metrics = metrics.Metrics
LOSS = "loss"  # selects the best checkpoint by the loss instead of a metric


@dataclass(frozen=True)
class Outcome:
    """The result of a forward pass on one batch."""

    loss: Tensor  # summed
    count: float  # number of terms in the sum
    outputs: Any = None  # what `train_metric` needs to measure the batch
    # the part of the loss that `primary_metric` does not cover; None: nothing
    aux_loss: Tensor | None = None


def check_best(best: str, metrics: Sequence[str], of: str) -> None:
    """Raise SettingsError unless `best` is LOSS or one of the metrics of `of`."""
    known = (LOSS, *metrics)
    if best in known:
        return
    near = difflib.get_close_matches(str(best), known, 1, 0.6)
    question = f"did you mean {near[0]}? " if near else ""
    raise SettingsError(
        f"train.best = {best!r} is no metric of {of}", do=f"{question}known: {', '.join(known)}"
    )


class Objective(ABC):
    """What a model is trained for: the methods that a run and its training loop call on every
    task.
    """

    name: ClassVar[str]
    learns_from: ClassVar[Literal["rows", "documents"]]
    # default preset for a new model; None: a model must be given
    preset: ClassVar[str | None] = None
    Options: ClassVar[type[Section]] = Section  # the type of its `task.*` settings
    # for options whose value a run may decide itself, the values that leave the decision to it; a
    # continued run keeps what was decided
    settled_options: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    # default settings of a tokenizer trained for it, as in published models
    tokenizer_defaults: ClassVar[Mapping[str, Any]] = {}
    primary_metric: str  # metric that training steps log and the curve shows
    best: str  # metric, or LOSS, that selects the best checkpoint

    # --- the model and its data ---

    @abstractmethod
    def network(self, config: ModelConfig, seed: int = 0, pad: int | None = None) -> nn.Module:
        """Return a new model.

        pad: the token that other libraries pad batches with, which is skipped when looking for a
        text's last token.
        """

    def weights_to_begin_with(
        self, weights: Mapping[str, Tensor], saved: Mapping[str, Any] | None, network: nn.Module
    ) -> dict[str, Tensor]:
        """Return the published model's weights that a new model starts from.

        saved: the task of the run that wrote them, if it was one of langue's; network: the new
        model.
        """
        return dict(weights)

    @abstractmethod
    def batches(self, train: Any, settings: Settings) -> BatchSource:
        """Return the source of training batches.

        train: the training split, as the task encodes it.
        """

    @abstractmethod
    def held_out(self, dev: Any, settings: Settings) -> Any:
        """Return the dev split in the form that `evaluate` takes; None if there is none."""

    # --- the training loop ---

    @abstractmethod
    def forward(self, model: nn.Module, batch: Any) -> Outcome:
        """Run the model on a batch."""

    @abstractmethod
    def train_metric(self, outcomes: list[Outcome], loss: float) -> float | None:
        """Return `primary_metric` over the batches of one training step.

        loss: the mean loss of the step, without `aux_loss`.
        """

    def logged(self, outcomes: list[Outcome]) -> dict[str, Any]:
        """Return further values for the log line of a training step."""
        return {}

    @abstractmethod
    def evaluate(
        self, model: nn.Module, dev: Any, *, device: torch.device, dtype: torch.dtype
    ) -> tuple[Metrics, float | None]:
        """Return the metrics and the mean loss on held-out data; the model's training mode is
        restored.
        """

    @abstractmethod
    def settle(
        self, model: nn.Module, dev: Any, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Choose what is chosen on held-out data after training, such as thresholds.

        dev: the result of `held_out`.
        """

    def label_of(self, metric: str) -> str | None:
        """Return the label that a metric refers to, if it refers to a single one."""
        return None

    def score(self, found: Metrics, loss: float | None) -> float:
        """Return how good an evaluation is by `best`; higher is better."""
        value = loss if self.best == LOSS else found[self.best]
        if self.best in metrics.LOWER_IS_BETTER:
            return -math.inf if value is None else -value
        # an undefined metric (of a constant prediction) is worse than any value
        return -1.0 if value is None else value
