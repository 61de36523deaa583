"""The interface of a task, all of whose specifics are in one file of this folder.

`encode` turns a table row into one or more token sequences; `loss` turns the model's outputs into a
loss as (sum, count); `decode` and `merge` turn them into one prediction for each row. `measure`,
`judge` and `mistakes` turn predictions into metrics and report sections, `baseline` does the same
for something simple, and `answer` and `show` make what people see. No code outside a task's file
knows its name: a task is registered in `langue/tasks/__init__.py`.
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
# What a prediction looks like to people: labels with probabilities, a number, marked spans of a
# text, answers from a context, a vector, a text, or the next message of a conversation.
Result = Literal["labels", "number", "spans", "answers", "vectors", "text", "messages"]
# Tokens of a prediction batch, on an accelerator and on a CPU. On a CPU they are so few that the
# activations of a layer stay in its caches, and that every core gets some batches.
BATCH_TOKENS = 16384
CPU_BATCH_TOKENS = 2048
FEWEST_BATCH_TOKENS = 512
BATCHES_PER_CORE = 4


@dataclass(frozen=True)
class Baseline:
    """The predictions of a simple system, trained on the same rows, for the rows under
    evaluation.
    """

    name: str
    metrics: Metrics
    predictions: Any  # one for each row, in the task's own form
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return what metrics.json stores of it."""
        return {"name": self.name, "metrics": dict(self.metrics), "seconds": self.seconds}


class Task(Objective):
    """A task with one prediction for each row, constructed by `fit` (from training rows) or
    `from_dict` (from a saved run).

    Golds and predictions are any Python values, one for each row, in a sequence or, where that is
    faster, an array. Subclasses implement the abstract methods; the others have defaults for tasks
    with one token sequence for each row.
    """

    learns_from = "rows"
    columns: ClassVar[Columns]
    result: ClassVar[Result]
    # whether it accepts texts, pairs of texts and token ids, of one kind in a call; otherwise
    # `encode_items` defines what it accepts
    takes_texts: ClassVar[bool] = True
    # whether its network is a language model, with logits over the vocabulary; otherwise it is a
    # body with the task's own `head`
    has_language_head: ClassVar[bool] = False
    # whether its baseline needs training rows
    baseline_learns: ClassVar[bool] = True
    # whether the model is also evaluated on dev before the first step
    looks_first: ClassVar[bool] = False
    # ends the note "... rows dropped" on rows that `encode` drops
    why_dropped: ClassVar[str] = "whose text has no tokens"
    # the metric of evaluations if the checkpoint was chosen by the loss, or not chosen
    main_metric: str
    settings: Any  # an instance of its Options

    # --- what the training rows define, and what a run keeps ---

    @classmethod
    @abstractmethod
    def fit(cls, train: "Table", options: Any) -> Self:
        """Return the task defined by the training rows (labels, scale of scores); raise DataError
        if nothing can be learnt from them.
        """

    @classmethod
    @abstractmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """Return the task of a saved run; the inverse of `to_dict`."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return what `langue.json` stores: `settings`, and whatever `fit` found."""

    @classmethod
    def options_of(cls, saved: Mapping[str, Any]) -> Any:
        """Return the options in a run's `settings`, without keys of other tasks, which earlier
        versions also saved.
        """
        fields = cls.Options.model_fields
        return cls.Options(**{key: value for key, value in saved.items() if key in fields})

    @classmethod
    def from_published(cls, published: Mapping[str, Any], family: Family) -> Self | None:
        """Return the task of a model published for `transformers`, or None if it is of another
        task.
        """
        return None

    @classmethod
    def from_folder(cls, folder: Path, config: ModelConfig) -> Self | None:
        """Return the task that other files of a published folder define, one whose head has no
        weights, or None.
        """
        return None

    @abstractmethod
    def published(self) -> dict[str, Any]:
        """Return what config.json stores in the terms of `transformers` (id2label etc.)."""

    def published_head(self, family: Family, pad: int | None) -> dict[str, Any]:
        """Return what config.json stores about how the head reads the hidden states.

        pad: the padding token that the batches were made with.
        """
        return {}

    @abstractmethod
    def describe_transformers_support(self, family: Family, data: DataSettings) -> str:
        """Return in one plain sentence what `transformers` users get from the saved folder."""

    def write_beside(self, folder: Path, config: ModelConfig, data: DataSettings) -> None:
        """Write the additional files of a saved model of this task."""

    def output_names(self) -> list[str]:
        """Return the names of the model's outputs, for people who inspect it."""
        return [str(name) for name in self.published().get("id2label", {}).values()]

    def adapt_to(self, config: ModelConfig) -> None:
        """Resolve options that depend on the model, so that the saved options are explicit."""

    def completed(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return a published model with whatever the task needs and the model lacks, before
        training.
        """
        return checkpoint

    def begun_with(
        self, model: nn.Module, encoded: Encoded, *, device: torch.device, dtype: torch.dtype
    ) -> Encoded:
        """Return a split with what its loss needs from the model as it is before training."""
        return encoded

    def use(self, checkpoint: Checkpoint) -> None:
        """Take what is needed from the model that the task is trained on or used with; raise
        ModelError if the model is of an unsuitable kind.
        """

    def generation(self) -> dict[str, Any]:
        """Return what generation_config.json stores."""
        return {}

    def go_on_from(self, saved: Mapping[str, Any]) -> None:
        """Adopt the resolved options of a run of this task that is trained further."""

    def has_outputs_of(self, saved: Mapping[str, Any]) -> bool:
        """Return whether a run's outputs mean the same as this task's, so that its head can be
        trained further.
        """
        return saved.get("task") == self.name

    # --- rows ---

    @classmethod
    @abstractmethod
    def read_target(cls, value: Any, options: Any, where: Callable[[], str]) -> Any:
        """Return the target of one row; raise DataError, at `where()`, if it is empty or of the
        wrong type.
        """

    def known_target(self, target: Any, where: Callable[[], str]) -> Any:
        """Return a target in the form of the golds; raise DataError if training did not have it."""
        return target

    @classmethod
    def raw_targets(cls, table: "Table") -> list[Any]:
        """Return the targets as they are in the table."""
        return table.column(cls.columns.target)

    @classmethod
    def read_targets(cls, table: "Table", options: Any) -> list[Any]:
        column = cls.raw_targets(table)
        return [
            cls.read_target(value, options, partial(table.where, row))
            for row, value in enumerate(column)
        ]

    def golds(self, table: "Table") -> Any:
        """Return the golds of all rows; DataError names the first row whose target is missing or
        invalid.
        """
        raw = self.read_targets(table, self.settings)
        return [self.known_target(t, partial(table.where, row)) for row, t in enumerate(raw)]

    @classmethod
    def usable_rows(cls, table: "Table", options: Any, ready: "Task | None") -> list[int]:
        """Return the rows whose target can be read and, if the task is `ready`, was seen in
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
        """Encode the rows of a split as token sequences, and return the table without the dropped
        rows.

        golds: the result of `golds`, one for each row. A row without any tokens is dropped with
        `data.invalid=drop`; otherwise DataError names it.
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
        """Call `encode` on the given rows of a table."""
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
        """Encode what a user passes to predict.

        as_texts encodes strings, pairs of strings and lists of token ids, and counts truncated
        tokens.
        """
        return Encoded.of(as_texts(items))

    @classmethod
    def items(cls, table: "Table") -> list[Any]:
        """Return a table's rows in the form `encode_items` takes: texts, pairs, or mappings by
        column.
        """
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
        """Return each row's input as one text, used to find duplicates and changed data."""
        there = [
            name
            for name in (*cls.columns.inputs, *cls.columns.optional)
            if name in table.rows.column_names and name != cls.columns.target
        ]
        columns = [map(_as_text, table.column(name)) for name in there]
        return ["\n".join(parts) for parts in zip(*columns, strict=True)]

    @classmethod
    def training_texts(cls, table: "Table") -> list[str]:
        """Return the texts for training a tokenizer, if the task starts with a new model."""
        return cls.texts(table)

    @classmethod
    def conflicts(cls, tables: Sequence["Table"], options: Any) -> dict[str, Counter[Any]]:
        """Return the texts that occur with different targets of which only one can be right, with
        the counts of each; empty for tasks that allow several right targets.
        """
        return {}

    # --- what people see before they train ---

    def notes(self) -> list[str]:
        """Return notes for the user on how the training targets were interpreted."""
        return []

    def facts(self) -> dict[str, Any]:
        """Return what the facts of a run say about the task besides its name."""
        return {}

    def remarks(self) -> list[str]:
        """Return what the preview says about how predictions will be evaluated."""
        return []

    @abstractmethod
    def balance(self, golds: Any) -> dict[str, float]:
        """Return the distribution of the targets by name: integers are counts of comparable targets
        (labels), floats are separate measurements.
        """

    @abstractmethod
    def show_target(self, gold: Any) -> str:
        """Return a row's target as the preview shows it."""

    # --- training ---

    def head(self, config: ModelConfig, pad: int | None = None) -> Head:
        """Return a new head; only for tasks with a head of their own.

        pad: a token that is skipped when looking for a text's last token.
        """
        raise NotImplementedError(f"the task {self.name} has no head of its own")

    @abstractmethod
    def head_kind(self, family: Family) -> str | None:
        """Return which of the family's heads (`Family.heads`) names the weights in published
        folders.

        A word that is not among them if the family has no class for this head; None if the head has
        no weights and only the body is published.
        """

    def network(self, config: ModelConfig, seed: int = 0, pad: int | None = None) -> nn.Module:
        return TaskModel(config, partial(self.head, config, pad), seed)

    def weights_to_begin_with(
        self, weights: Mapping[str, Tensor], saved: Mapping[str, Any] | None, network: nn.Module
    ) -> dict[str, Tensor]:
        """Return all weights except those of a head for other labels, or for which the new head has
        no parameter.
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
        """Return the summed loss and its count.

        outputs: the output of the head.
        """
        raise NotImplementedError(f"the task {self.name} has no head of its own")

    def logits(self, outputs: Any) -> Tensor:
        """Return the logits that a published class would return, from the output of the head."""
        scores: Tensor = outputs
        return scores

    def rescale_head(self, weights: Mapping[str, Tensor], back: bool = False) -> dict[str, Tensor]:
        """Return the network's weights as they are saved, if it is trained on rescaled targets.

        back: the inverse, for a head that is trained further.
        """
        return dict(weights)

    def forward(self, model: nn.Module, batch: Batch) -> Outcome:
        outputs = model(batch)
        loss, count = self.loss(outputs, batch)
        return Outcome(loss, count, self.outputs_to_measure(outputs, batch))

    def outputs_to_measure(self, outputs: Any, batch: Batch) -> Any:
        """Return what `train_metric` needs of a batch, detached from the autograd graph."""
        return None

    def train_metric(self, outcomes: list[Outcome], loss: float) -> float | None:
        return None

    @abstractmethod
    def metric_names(self) -> list[str]:
        """Return the names of `metrics`, which do not depend on the examples."""

    @abstractmethod
    def default_best(self) -> str:
        """Return what selects the best checkpoint if `train.best` is not set."""

    def choose_by(self, best: str | None) -> None:
        """Select the best checkpoint by LOSS or by a metric; None: by the default. Raises
        SettingsError for an unknown name.

        If this is never called, the task selects as in runs from before the setting existed.
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
        """Whether something, such as a threshold, is chosen on dev after training."""
        return False

    def settle_on_dev(self, golds: Any, predictions: Any) -> None:
        """Choose it from the finished model's predictions on dev."""
        raise NotImplementedError(f"the task {self.name} settles nothing on dev")

    # --- predicting ---

    def decode(self, outputs: Any, batch: Batch) -> Any:
        """Return what is kept of each sequence of a batch, in the order of the batch."""
        raise NotImplementedError(f"the task {self.name} has no head of its own")

    def merge(self, sequences: Any, encoded: Encoded) -> Any:
        """Return one prediction for each row from what `decode` kept of each sequence."""
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
        """Return the predictions in the order of the rows and, if there are golds, the mean loss.

        progress: called with the number of finished sequences. Only the results of `decode` stay in
        memory, not the logits.
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
        """Return one prediction in the form of the pipelines of `transformers` 4, the best `top`
        entries; None: all.
        """

    def answer(self, prediction: Any) -> Any:
        """Return the final answer for a row, by default the best entry of `show`."""
        return self.show(prediction, 1)[0]

    # --- judging ---

    @abstractmethod
    def measure(self, golds: Any, predictions: Any) -> Measure:
        """Return all metrics as a function of row weights (how often each row counts)."""

    def metrics(self, golds: Any, predictions: Any) -> Metrics:
        return plain(self.measure(golds, predictions), len(golds))

    def judge(
        self, golds: Any, predictions: Any, main: str | None = None, *, seed: int = 0
    ) -> Judgement:
        """Return the judgement of predictions.

        main: the metric that the judgement highlights; None: the task's own.
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
        """Return the worst mistakes, worst first, as a section of the report."""
        return None

    def baseline(
        self,
        train: tuple["Table", Any],
        test: tuple["Table", Any],
        *,
        metric: str,
        as_model: bool = True,
    ) -> Baseline | None:
        """Return the predictions of a simple system for the test rows, or None if there is none.

        train, test: rows and their golds. metric: what it is tuned for. as_model: weighted and
        tuned like the model that it is compared with; in runs from before `train.best` it was
        plain.
        """
        return None

    def beside(self, name: str, golds: Any, predictions: Any) -> Baseline:
        """Return predictions of another run in the form of a baseline, for comparison."""
        return Baseline(name, self.metrics(golds, predictions), predictions, 0.0)

    def systems(self, golds: Any, predictions: Any, baseline: Baseline, metric: str) -> Systems:
        """Return the answers of model and baseline to the same rows, for the paired comparison."""
        both = [*golds, *golds]
        mixed = self.measure(both, [*predictions, *baseline.predictions])
        return systems_of(
            self.measure(golds, predictions),
            self.measure(golds, baseline.predictions),
            mixed,
            len(golds),
        )


def _as_text(value: Any) -> str:
    """Return a cell as text; the elements of a list are joined."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value))
    return value if isinstance(value, str) else str(value)


def rows_with_tokens(
    table: "Table",
    usable: np.ndarray[Any, Any],
    data: DataSettings,
    fault: Callable[[int], str] = lambda row: "the text has no tokens",
) -> np.ndarray[Any, Any] | None:
    """Return the rows whose texts have tokens, or None if that is all of them.

    usable (n,): whether each row has tokens. Raises DataError for the first row without any, unless
    such rows are to be dropped, and if no row has any. fault: describes what is wrong with a row.
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
    """Yield each batch with the result of `work` on it, longest texts first.

    On a CPU every core takes a batch of its own, because threads that share a batch wait for each
    other at every operation. `work` must therefore not modify shared state.
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
    # Ranks that shard a model's weights must request them in the same order.
    yield from parallel_map(one, batches) if world_size() == 1 else map(one, batches)
