"""What arrives: a model and a batch. What leaves: a loss as (sum, count), which is all that the
training loop asks for.

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
    metrics of `of`.
    """
    known = (LOSS, *metrics)
    if best in known:
        return
    near = difflib.get_close_matches(str(best), known, 1, 0.6)
    question = f"did you mean {near[0]}? " if near else ""
    raise SettingsError(
        f"train.best = {best!r} is no metric of {of}", do=f"{question}known: {', '.join(known)}"
    )


class Objective(ABC):
    """What a model is trained for: what a run and its training loop ask of every task."""

    name: ClassVar[str]
    learns_from: ClassVar[Literal["rows", "documents"]]
    # the architecture of a new model where none is named; None: it needs a model
    preset: ClassVar[str | None] = None
    Options: ClassVar[type[Section]] = Section  # its `task.*` settings
    # the options that leave something to the run, and the values that do: what a run has settled
    # stays as it is when the run goes on
    settled_options: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    # what a tokenizer is that is trained for it, as the published ones are
    tokenizer_defaults: ClassVar[Mapping[str, Any]] = {}
    primary_metric: str  # the metric that training steps log and the curve shows
    best: str  # what the best checkpoint is best in: a metric, or LOSS

    # --- what is trained, and on what ---

    @abstractmethod
    def network(self, config: ModelConfig, seed: int = 0, pad: int | None = None) -> nn.Module:
        """A new model. pad: the token that fills up batches elsewhere, which a text's end does not
        count.
        """

    def weights_to_begin_with(
        self, weights: Mapping[str, Tensor], saved: Mapping[str, Any] | None, network: nn.Module
    ) -> dict[str, Tensor]:
        """Those of a published model's weights that a new model takes over. saved: what its run
        says of its task, where it is one of ours; network: the new model.
        """
        return dict(weights)

    @abstractmethod
    def batches(self, train: Any, settings: Settings) -> BatchSource:
        """Where the batches of training come from. train: the training split, as the task reads
        it.
        """

    @abstractmethod
    def held_out(self, dev: Any, settings: Settings) -> Any:
        """The dev split as `evaluate` takes it; None where there is none."""

    # --- the training loop ---

    @abstractmethod
    def forward(self, model: nn.Module, batch: Any) -> Outcome:
        """Run the model on a batch."""

    @abstractmethod
    def train_metric(self, outcomes: list[Outcome], loss: float) -> float | None:
        """`primary_metric` over the batches of one training step, whose mean loss, without what is
        `aux_loss`, was `loss`.
        """

    def logged(self, outcomes: list[Outcome]) -> dict[str, Any]:
        """What else a training step's line of the log says of its batches."""
        return {}

    @abstractmethod
    def evaluate(
        self, model: nn.Module, dev: Any, *, device: torch.device, dtype: torch.dtype
    ) -> tuple[Metrics, float | None]:
        """The metrics and the mean loss on held-out data; the model is left in the mode it was
        in.
        """

    @abstractmethod
    def settle(
        self, model: nn.Module, dev: Any, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Settle what is settled on held-out data once training is over; dev: of `held_out`."""

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
