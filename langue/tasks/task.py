"""What a task is: everything that is particular to it, in one file of this folder.

A row of a table becomes one or more token sequences (`encode`), the model's outputs a loss as
(sum, count) and one prediction a row (`loss`, `decode`, `merge`), predictions numbers and sections
of a report (`measure`, `judge`, `mistakes`), beside those of something simple (`baseline`), and
what people are shown (`answer`, `show`). Nothing outside a task's file knows its name: it enters
by being registered in `langue/tasks/__init__.py`.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from langue.data.batch import Batch, Examples, gather
from langue.data.encoded import Encoded, in_order
from langue.data.loader import BatchSource, Split
from langue.data.pack import sorted_batches
from langue.errors import DataError
from langue.hub.checkpoint import Checkpoint
from langue.hub.family import Family
from langue.model.config import ModelConfig
from langue.model.heads import Head, TaskModel
from langue.runtime import (
    batch_tokens,
    evaluating,
    keep_freed_memory,
    keep_kernels,
    parallel_map,
    world_size,
)
from langue.settings.sections import DataSettings, Settings
from langue.statistics.compare import Systems, systems_of
from langue.statistics.intervals import bootstrap
from langue.statistics.metrics import Measure, plain
from langue.tasks import judgement
from langue.tasks.columns import Columns
from langue.tasks.judgement import Judgement
from langue.tasks.objective import LOSS, Metrics, Objective, Outcome, check_best
from langue.text.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from langue.text.read.source import Table

R = TypeVar("R")
# What people look at in a prediction: labels with their probabilities, a number, parts of a text
# that are marked, answers that stand in a context, a vector, a text, or the next message of a
# conversation.
Result = Literal["labels", "number", "spans", "answers", "vectors", "text", "messages"]
# Tokens of a batch that is predicted: on an accelerator; and on a processor, so few that what a
# layer computes stays in its caches, and few enough that every core gets some batches.
BATCH_TOKENS = 16384
CPU_BATCH_TOKENS = 2048
FEWEST_BATCH_TOKENS = 512
BATCHES_PER_CORE = 4


@dataclass(frozen=True)
class Baseline:
    """What something simple, trained on the same rows, predicts of the rows that are judged."""

    name: str
    metrics: Metrics
    predictions: Any  # one a row, as the task's own
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """What metrics.json keeps of it."""
        return {"name": self.name, "metrics": dict(self.metrics), "seconds": self.seconds}


class Task(Objective):
    """One prediction a row. Subclasses are made by `fit` (from training rows) or `from_dict` (from
    a run).

    Golds and predictions are any Python values, one a row: a sequence, or an array where that is
    faster. A task must say what is abstract here; the rest has defaults for one sequence a row.
    """

    learns_from = "rows"
    columns: ClassVar[Columns]
    result: ClassVar[Result]
    # whether it predicts from texts, pairs of them and token ids, all of one kind in a call;
    # else `encode_items` says what it takes
    takes_texts: ClassVar[bool] = True
    # whether its network is a language model with its head, which scores every token of the
    # vocabulary; else a body with the task's own `head`
    has_language_head: ClassVar[bool] = False
    # whether its baseline needs rows to be trained on
    baseline_learns: ClassVar[bool] = True
    # whether the model is judged on dev before its first step, too
    looks_first: ClassVar[bool] = False
    # of rows that `encode` leaves out
    why_dropped: ClassVar[str] = "whose text has no tokens"
    # what it is judged by where the checkpoint was chosen by the loss, or by nothing
    main_metric: str
    settings: Any  # its Options

    # --- what the training rows define, and what a run keeps ---

    @classmethod
    @abstractmethod
    def fit(cls, train: "Table", options: Any) -> Self:
        """Learn from the training rows what the targets are. DataError where nothing can be learnt
        from them.
        """

    @classmethod
    @abstractmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """The task of a saved run: the inverse of `to_dict`."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """What `langue.json` keeps: `settings`, and whatever `fit` found."""

    @classmethod
    def options_of(cls, saved: Mapping[str, Any]) -> Any:
        """The options of a run's `settings`; keys of other tasks, which runs of earlier versions
        kept too, are passed over.
        """
        fields = cls.Options.model_fields
        return cls.Options(**{key: value for key, value in saved.items() if key in fields})

    @classmethod
    def from_published(cls, published: Mapping[str, Any], family: Family) -> Self | None:
        """The task of a model that others published in `transformers`' words; None where it is of
        another task.
        """
        return None

    @classmethod
    def from_folder(cls, folder: Path, config: ModelConfig) -> Self | None:
        """The task that other files of a published folder stand for, which has no head of weights;
        None where there are none.
        """
        return None

    @abstractmethod
    def published(self) -> dict[str, Any]:
        """What config.json keeps, in the words of `transformers` (id2label and the like)."""

    def published_head(self, family: Family, pad: int | None) -> dict[str, Any]:
        """What config.json keeps of how the head reads the hidden states. pad: the padding token
        that batches were made with.
        """
        return {}

    @abstractmethod
    def describe_transformers_support(self, family: Family, data: DataSettings) -> str:
        """What `transformers` users get from the saved folder, in one plain sentence."""

    def write_beside(self, folder: Path, config: ModelConfig, data: DataSettings) -> None:
        """Write the files that a saved model of this task has besides those of all models."""

    def output_names(self) -> list[str]:
        """What the model tells apart, for people who inspect it."""
        return [str(name) for name in self.published().get("id2label", {}).values()]

    def adapt_to(self, config: ModelConfig) -> None:
        """Settle what depends on the model, so that what is saved is explicit."""

    def completed(self, checkpoint: Checkpoint) -> Checkpoint:
        """A published model with what the task needs of it and it lacks, before it is trained."""
        return checkpoint

    def begun_with(
        self, model: nn.Module, encoded: Encoded, *, device: torch.device, dtype: torch.dtype
    ) -> Encoded:
        """A split with what its loss needs to know of the model as it is before training."""
        return encoded

    def use(self, checkpoint: Checkpoint) -> None:
        """Take what it needs of the model that it is trained on or used with. ModelError for a
        model of another kind.
        """

    def generation(self) -> dict[str, Any]:
        """What generation_config.json keeps of how texts are written."""
        return {}

    def go_on_from(self, saved: Mapping[str, Any]) -> None:
        """Take over what a run of this task that is trained further has settled."""

    def has_outputs_of(self, saved: Mapping[str, Any]) -> bool:
        """Whether a run's outputs mean the same as this task's, so that its head is trained
        further.
        """
        return saved.get("task") == self.name

    # --- rows ---

    @classmethod
    @abstractmethod
    def read_target(cls, value: Any, options: Any, where: Callable[[], str]) -> Any:
        """One row's raw target; DataError, at `where()`, for one that is empty or of the wrong
        kind.
        """

    def known_target(self, target: Any, where: Callable[[], str]) -> Any:
        """A raw target as it is judged; DataError for one that training did not have."""
        return target

    @classmethod
    def raw_targets(cls, table: "Table") -> list[Any]:
        """The targets as they stand in the table."""
        return table.column(cls.columns.target)

    @classmethod
    def read_targets(cls, table: "Table", options: Any) -> list[Any]:
        column = cls.raw_targets(table)
        return [
            cls.read_target(value, options, partial(table.where, row))
            for row, value in enumerate(column)
        ]

    def golds(self, table: "Table") -> Any:
        """What is true of each row; DataError names the row that has nothing or something bad."""
        raw = self.read_targets(table, self.settings)
        return [self.known_target(t, partial(table.where, row)) for row, t in enumerate(raw)]

    @classmethod
    def usable_rows(cls, table: "Table", options: Any, ready: "Task | None") -> list[int]:
        """The rows whose target can be read and, where there is a task already, was seen in its
        training.
        """
        usable = []
        for row, value in enumerate(cls.raw_targets(table)):
            try:
                target = cls.read_target(value, options, str)
                if ready is not None:
                    ready.known_target(target, str)
            except DataError:
                continue
            usable.append(row)
        return usable

    @abstractmethod
    def encode(
        self,
        tokenizer: Tokenizer,
        table: "Table",
        golds: Any,
        data: DataSettings,
        config: ModelConfig,
    ) -> tuple["Table", Encoded]:
        """A split's rows as token sequences, and the table of the rows that they are of.

        golds: of `golds`, one a row. A row in which there is nothing to read is a DataError that
        names it, or is left out (`data.invalid=drop`).
        """

    def encode_rows(
        self,
        rows: np.ndarray[Any, Any],
        tokenizer: Tokenizer,
        table: "Table",
        golds: Any,
        data: DataSettings,
        config: ModelConfig,
    ) -> tuple["Table", Encoded]:
        """`encode` of these rows of a table alone."""
        chosen = None if golds is None else [golds[row] for row in rows]
        return self.encode(tokenizer, table.select(rows), chosen, data, config)

    def encode_items(
        self,
        items: list[Any],
        tokenizer: Tokenizer,
        data: DataSettings,
        config: ModelConfig,
        as_texts: Callable[[list[Any]], Examples],
    ) -> Encoded:
        """What a user gives to predict from. as_texts encodes strings, pairs of strings and lists
        of token ids, and counts what is cut.
        """
        return Encoded.of(as_texts(items))

    @classmethod
    def items(cls, table: "Table") -> list[Any]:
        """A table's rows as `encode_items` takes them: texts, pairs, or records by column."""
        there = [
            name
            for name in (*cls.columns.inputs, *cls.columns.optional)
            if name in table.rows.column_names
        ]
        columns = [table.column(name) for name in there]
        if there == ["text"]:
            return columns[0]
        rows = zip(*columns, strict=True)
        if there == ["text", "pair"]:
            return list(rows)
        return [dict(zip(there, row, strict=True)) for row in rows]

    @classmethod
    def texts(cls, table: "Table") -> list[str]:
        """Each row's input as one text, by which duplicates and changed data are found."""
        there = [
            name
            for name in (*cls.columns.inputs, *cls.columns.optional)
            if name in table.rows.column_names and name != cls.columns.target
        ]
        columns = [[_as_text(value) for value in table.column(name)] for name in there]
        return ["\n".join(parts) for parts in zip(*columns, strict=True)]

    @classmethod
    def training_texts(cls, table: "Table") -> list[str]:
        """The texts that a tokenizer is trained on, where the task begins with a new model."""
        return cls.texts(table)

    @classmethod
    def conflicts(cls, tables: Sequence["Table"], options: Any) -> dict[str, Counter[Any]]:
        """The texts that have different targets where one is right, and how often they have each;
        none where different ones may be right.
        """
        return {}

    # --- what people see before they train ---

    def notes(self) -> list[str]:
        """What a user should know of how the targets of training were taken."""
        return []

    def facts(self) -> dict[str, Any]:
        """What the facts of a run say of the task besides its name."""
        return {}

    def remarks(self) -> list[str]:
        """What the preview says of how predictions are going to be judged."""
        return []

    @abstractmethod
    def balance(self, golds: Any) -> dict[str, float]:
        """How the targets are spread, by name: integers, where they count targets that can be
        compared (labels), or floats, which measure each something else.
        """

    @abstractmethod
    def show_target(self, gold: Any) -> str:
        """A row's target as the preview shows it."""

    # --- training ---

    def head(self, config: ModelConfig, pad: int | None = None) -> Head:
        """A new head, of a task that has its own. pad: a token that a text's end does not count."""
        raise NotImplementedError(f"the task {self.name} has no head of its own")

    @abstractmethod
    def head_kind(self, family: Family) -> str | None:
        """Which of the family's heads (`Family.heads`) names the weights in published folders; a
        word that is none of them where the family has no class for this head; None: the head has no
        weights, and the body alone is published.
        """

    def network(self, config: ModelConfig, seed: int = 0, pad: int | None = None) -> nn.Module:
        return TaskModel(config, partial(self.head, config, pad), seed)

    def weights_to_begin_with(
        self, weights: Mapping[str, Tensor], saved: Mapping[str, Any] | None, network: nn.Module
    ) -> dict[str, Tensor]:
        """All but what a head has learnt of labels, where these are others, or it has no place for
        it.
        """
        assert isinstance(network, TaskModel)
        is_same = saved is not None and self.has_outputs_of(saved)
        held = {name for name, _ in network.named_parameters()}
        of_labels = tuple(f"head.{name}" for name in network.head.of_labels)
        taken = {
            name: tensor
            for name, tensor in weights.items()
            if not name.startswith(of_labels) or is_same and name in held
        }
        return self.rescale_head(taken, back=True)

    def batches(self, train: Encoded, settings: Settings) -> BatchSource:
        return Split(train.examples, settings.train)

    def held_out(self, dev: Encoded | None, settings: Settings) -> Encoded | None:
        return dev

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, float]:
        """The summed loss, and what it is summed over. outputs: what the head gives."""
        raise NotImplementedError(f"the task {self.name} has no head of its own")

    def logits(self, outputs: Any) -> Tensor:
        """The scores that a published class gives, of what the head gives."""
        scores: Tensor = outputs
        return scores

    def rescale_head(self, weights: Mapping[str, Tensor], back: bool = False) -> dict[str, Tensor]:
        """The network's weights as they are saved, where it is trained on targets in another scale
        than theirs; back: the inverse, of a head that is trained further.
        """
        return dict(weights)

    def forward(self, model: nn.Module, batch: Batch) -> Outcome:
        outputs = model(batch)
        loss, count = self.loss(outputs, batch)
        return Outcome(loss, count, self.outputs_to_measure(outputs, batch))

    def outputs_to_measure(self, outputs: Any, batch: Batch) -> Any:
        """What `train_metric` needs of a batch, without the graph of its gradients."""
        return None

    def train_metric(self, outcomes: list[Outcome], loss: float) -> float | None:
        return None

    @abstractmethod
    def metric_names(self) -> list[str]:
        """The names of `metrics`, which do not depend on the examples."""

    @abstractmethod
    def default_best(self) -> str:
        """What the best checkpoint is best in where `train.best` does not say it."""

    def choose_by(self, best: str | None) -> None:
        """Choose the best checkpoint by LOSS or by a metric; None: by the default. SettingsError
        for another name.

        A task on which this is never called chooses as runs did before there was the setting.
        """
        chosen = self.default_best() if best is None else best
        check_best(chosen, self.metric_names(), f"the task {self.name}")
        self.best = chosen
        if chosen != LOSS:
            self.primary_metric = chosen

    def evaluate(
        self, model: nn.Module, dev: Encoded, *, device: torch.device, dtype: torch.dtype
    ) -> tuple[Metrics, float | None]:
        predictions, loss = self.apply(model, dev, device=device, dtype=dtype)
        return self.metrics(dev.golds, predictions), loss

    def settle(
        self, model: nn.Module, dev: Encoded | None, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        if dev is not None and self.settles_on_dev:
            predictions, _ = self.apply(model, dev, device=device, dtype=dtype)
            self.settle_on_dev(dev.golds, predictions)

    @property
    def settles_on_dev(self) -> bool:
        """Whether there is something to settle on dev once training is over."""
        return False

    def settle_on_dev(self, golds: Any, predictions: Any) -> None:
        """Settle it, from the finished model's predictions on dev."""
        raise NotImplementedError(f"the task {self.name} settles nothing on dev")

    # --- predicting ---

    def decode(self, outputs: Any, batch: Batch) -> Any:
        """What is kept of each sequence of a batch, one a sequence in the batch's order."""
        raise NotImplementedError(f"the task {self.name} has no head of its own")

    def merge(self, sequences: Any, encoded: Encoded) -> Any:
        """One prediction a row, of what `decode` kept of each sequence."""
        return sequences

    def apply(
        self,
        model: nn.Module,
        encoded: Encoded,
        *,
        device: torch.device,
        dtype: torch.dtype,
        progress: Callable[[int], None] | None = None,
    ) -> tuple[Any, float | None]:
        """Predictions, one a row in the rows' order, and, where there are targets, the mean loss.

        progress: told how many sequences are done. What `decode` keeps is held, logits are not.
        """
        with evaluating(model):
            examples = encoded.examples
            scored = encoded.golds is not None
            parts = []
            total = 0.0
            count = 0.0
            for batch, outputs in infer(model, examples, device, dtype):
                parts.append((batch.rows, self.decode(outputs, batch)))
                if scored:
                    loss, number = self.loss(outputs, batch)
                    total = total + float(loss)
                    count = count + number
                if progress is not None:
                    progress(len(batch))
        predictions = self.merge(in_order(len(examples), parts), encoded)
        return predictions, (total / count if count else None)

    @abstractmethod
    def show(self, prediction: Any, top: int | None) -> list[dict[str, Any]]:
        """One prediction as the `transformers` pipelines of version 4 return it, the best `top`;
        None: all.
        """

    def answer(self, prediction: Any) -> Any:
        """What the task promises of a row: by default the best that `show` has."""
        return self.show(prediction, 1)[0]

    # --- judging ---

    @abstractmethod
    def measure(self, golds: Any, predictions: Any) -> Measure:
        """Every metric as a function of how often each row counts."""

    def metrics(self, golds: Any, predictions: Any) -> Metrics:
        return plain(self.measure(golds, predictions), len(golds))

    def judge(
        self, golds: Any, predictions: Any, main: str | None = None, *, seed: int = 0
    ) -> Judgement:
        """How good predictions are. main: the metric that the judgement goes by; None: the task's
        own.
        """
        measure = self.measure(golds, predictions)
        metrics = plain(measure, len(golds))
        return Judgement(
            examples=len(golds),
            metrics=metrics,
            intervals=bootstrap(measure, metrics, len(golds), seed=seed),
            primary_metric=main or self.main_metric,
        )

    def mistakes(
        self, table: "Table", golds: Any, predictions: Any, limit: int = 20
    ) -> judgement.Examples | None:
        """The worst mistakes first, as a section of the report."""
        return None

    def baseline(
        self,
        train: tuple["Table", Any],
        test: tuple["Table", Any],
        *,
        metric: str,
        as_model: bool = True,
    ) -> Baseline | None:
        """What something simple predicts of the test rows; None where there is nothing.

        train, test: rows and their golds. metric: what it is chosen by. as_model: it is weighted
        and tuned as the model beside it is; runs of before `train.best` had theirs plain.
        """
        return None

    def beside(self, name: str, golds: Any, predictions: Any) -> Baseline:
        """What this has predicted, as what another run is compared with."""
        return Baseline(name, self.metrics(golds, predictions), predictions, 0.0)

    def systems(self, golds: Any, predictions: Any, baseline: Baseline, metric: str) -> Systems:
        """The model's and the baseline's answers to the same rows, for the paired comparison."""
        both = [*golds, *golds]
        mixed = self.measure(both, [*predictions, *baseline.predictions])
        return systems_of(
            self.measure(golds, predictions),
            self.measure(golds, baseline.predictions),
            mixed,
            len(golds),
        )


def _as_text(value: Any) -> str:
    """A cell as a text: of a list, its parts in a row."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value))
    return value if isinstance(value, str) else str(value)


def rows_with_tokens(
    table: "Table",
    usable: np.ndarray[Any, Any],
    data: DataSettings,
    fault: Callable[[int], str] = lambda row: "the text has no tokens",
) -> np.ndarray[Any, Any] | None:
    """The rows whose texts have tokens, usable (n,), where that is not all of them.

    DataError at the first that has none, unless these are to be dropped; and where none has any.
    fault: what is wrong with such a row.
    """
    if usable.all():
        return None
    if data.invalid == "error":
        bad = int(usable.argmin())
        do = "fill it in or take it out (in training: data.invalid=drop)"
        raise DataError(fault(bad), where=table.where(bad), do=do)
    if not usable.any():
        raise DataError(
            "no text has any tokens", where=table.origin, do="is it text that the model can read?"
        )
    return np.flatnonzero(usable)


def infer(
    work: Callable[[Batch], R], examples: Examples, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[Batch, R]]:
    """Each batch with what `work` makes of it, longest texts first.

    A processor's cores take a batch each: threads that share one wait for each other at every step
    of it. `work` must therefore change nothing that it shares.
    """

    def one(rows: NDArray[np.int64]) -> tuple[Batch, R]:
        batch = gather(examples, rows, device)
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return batch, work(batch)

    longest = int(examples.lengths.max(initial=1))
    total = int(examples.lengths.sum())
    if device.type != "cpu":
        budget = max(batch_tokens(BATCH_TOKENS), longest)
        yield from map(one, sorted_batches(examples.lengths, budget))
        return
    keep_freed_memory()
    keep_kernels()
    share = total // (BATCHES_PER_CORE * torch.get_num_threads())
    budget = batch_tokens(min(CPU_BATCH_TOKENS, max(FEWEST_BATCH_TOKENS, share)))
    batches = sorted_batches(examples.lengths, max(budget, longest))
    # Processes that share a model's weights must ask for them in the same order.
    yield from parallel_map(one, batches) if world_size() == 1 else map(one, batches)
