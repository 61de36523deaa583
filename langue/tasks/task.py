"""What arrives: a split's rows and a Transformer's hidden states.
What leaves: examples, a loss as (sum, count), predictions.

A task says what an example is, how it becomes a batch, which head it needs, its loss, its metrics
and how a prediction is shown.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from langue.data.batch import Batch, Examples, first_tokens, last_tokens, pool_mean
from langue.data.encode import encode
from langue.errors import DataError, ModelError, SettingsError
from langue.model.config import ModelConfig
from langue.model.kernels import Dropout
from langue.model.layers import ACTIVATIONS, make_norm
from langue.model.transformer import Transformer, initialise
from langue.settings.sections import DataSettings, TaskSettings
from langue.tasks.infer import infer
from langue.tasks.objective import LOSS, Metrics, Objective, Outcome, check_best
from langue.text.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from langue.text.read.source import Table
Pooling = Literal["auto", "mean", "first", "last"]


class Task(Objective):
    """One row in, one prediction out. Subclasses are made by `fit` (from training rows) or
    `from_dict` (from a run)."""

    need: ClassVar[tuple[str, ...]]  # columns that a row must have
    optional: ClassVar[tuple[str, ...]] = ("pair",)
    target: ClassVar[str]  # the column that is predicted

    settings: TaskSettings

    @classmethod
    @abstractmethod
    def fit(cls, train: "Table", settings: TaskSettings) -> Self:
        """Learn from the training rows what the targets are. DataError where nothing can be learnt
        from them."""

    @classmethod
    @abstractmethod
    def from_dict(cls, saved: dict[str, Any]) -> Self:
        """The task of a saved run: the inverse of `to_dict`."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """What `langue.json` keeps."""

    @abstractmethod
    def published(self) -> dict[str, Any]:
        """What config.json keeps, in the words of `transformers` (id2label and the like)."""

    @property
    @abstractmethod
    def n_outputs(self) -> int: ...

    @classmethod
    @abstractmethod
    def read_target(cls, value: Any, settings: TaskSettings, where: Callable[[], str]) -> Any:
        """One row's raw target; DataError, at `where()`, for one that is empty or of the wrong
        kind."""

    @abstractmethod
    def known_target(self, target: Any, where: Callable[[], str]) -> Any:
        """A raw target as the loss takes it; DataError for one that training did not have."""

    @classmethod
    def read_targets(cls, table: "Table", settings: TaskSettings) -> list[Any]:
        column = table.column(cls.target)
        return [
            cls.read_target(value, settings, partial(table.where, row))
            for row, value in enumerate(column)
        ]

    def targets(self, table: "Table") -> NDArray[Any]:
        """The targets of a split's rows, (n, ...); DataError names the row that has none or a bad
        one."""
        raw = self.read_targets(table, self.settings)
        return np.asarray(
            [self.known_target(t, partial(table.where, row)) for row, t in enumerate(raw)]
        )

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, float]:
        """outputs (N, n_outputs), targets (N, ...) -> the summed loss and what it is summed
        over."""

    @abstractmethod
    def predict(self, outputs: Tensor) -> NDArray[np.float32]:
        """outputs (N, n_outputs) -> what is judged and shown: probabilities or scores, (N,
        n_outputs)."""

    @abstractmethod
    def metrics(self, targets: NDArray[Any], predictions: NDArray[np.float32]) -> Metrics: ...

    def notes(self) -> list[str]:
        """What a user should know of how the targets of training were taken."""
        return []

    @abstractmethod
    def show(self, prediction: NDArray[np.float32], top: int | None) -> list[dict[str, Any]]:
        """One prediction as `transformers` pipelines return it: `[{"label": ..., "score": ...}]`;
        top=None: all."""

    def answer(self, prediction: NDArray[np.float32]) -> Any:
        """What the task promises of a text: one `{"label", "score"}`; with several labels a list of
        those given."""
        return self.show(prediction, 1)[0]

    @property
    def settles_on_dev(self) -> bool:
        """Whether there is something to settle on dev once training is over."""
        return False

    def settle_on_dev(self, targets: NDArray[Any], predictions: NDArray[np.float32]) -> None:
        """Settle it, from the finished model's predictions on dev."""
        raise NotImplementedError(f"the task {self.name} settles nothing on dev")

    def rescale_head(self, weights: Mapping[str, Tensor], back: bool = False) -> dict[str, Tensor]:
        """The network's weights as they are saved, where it is trained on targets in another scale
        than theirs; back: the inverse, of a head that is trained further."""
        return dict(weights)

    @abstractmethod
    def balance(self, targets: NDArray[Any]) -> dict[str, float]:
        """How the targets are spread, for people to see before they pay."""

    def forward(self, model: nn.Module, batch: Batch) -> Outcome:
        assert batch.targets is not None
        outputs = model(batch)
        loss, count = self.loss(outputs, batch.targets)
        return Outcome(loss, count, (batch.targets, outputs.detach()))

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

    def train_metric(self, outcomes: list[Outcome], loss: float) -> float | None:
        targets, outputs = (
            torch.cat(part) for part in zip(*(each.outputs for each in outcomes), strict=True)
        )
        return self.metrics(targets.cpu().numpy(), self.predict(outputs))[self.primary_metric]

    def evaluate(
        self, model: nn.Module, dev: Examples, *, device: torch.device, dtype: torch.dtype
    ) -> tuple[Metrics, float | None]:
        predictions, loss = self.apply(model, dev, device=device, dtype=dtype)
        assert dev.targets is not None
        return self.metrics(dev.targets, predictions), loss

    def apply(
        self,
        model: nn.Module,
        examples: Examples,
        *,
        device: torch.device,
        dtype: torch.dtype,
        progress: Callable[[int], None] | None = None,
    ) -> tuple[NDArray[np.float32], float | None]:
        """Predictions (n, n_outputs), in the examples' order, and, where there are targets, the
        mean loss.

        progress: told how many examples are done. Metrics are held, logits are not.
        """
        was_training = model.training
        model.eval()
        predictions = np.zeros((len(examples), self.n_outputs), np.float32)
        total = 0.0
        count = 0.0
        for batch, outputs in infer(model, examples, device, dtype):
            predictions[batch.rows] = self.predict(outputs)
            if batch.targets is not None:
                loss, number = self.loss(outputs, batch.targets)
                total = total + float(loss)
                count = count + number
            if progress is not None:
                progress(len(batch))
        model.train(was_training)
        return predictions, (total / count if count else None)

    def resolve_pooling(self, config: ModelConfig) -> None:
        """Say which pooling `auto` is for this model, so that what is saved is explicit."""
        self.settings = self.settings.model_copy(
            update={"pooling": resolve_pooling(self.settings.pooling, config)}
        )

    def encode(
        self, tokenizer: Tokenizer, table: "Table", data: DataSettings, config: ModelConfig
    ) -> tuple["Table", Examples]:
        """A split's rows as token ids, without targets, and the table of these rows.

        A row whose text has no tokens is a DataError that names it, or is left out
        (`data.invalid=drop`).
        """
        pairs = table.column("pair") if "pair" in table.rows.column_names else None
        examples = encode_texts(
            tokenizer,
            table.column("text"),
            pairs,
            max_length=data.max_length,
            cut=data.truncation,
            config=config,
        )
        usable = examples.lengths > 0
        if usable.all():
            return table, examples
        first = table.where(int(usable.argmin()))
        if data.invalid == "error":
            do = "fill it in or take it out (in training: data.invalid=drop)"
            raise DataError("the text has no tokens", where=first, do=do)
        if not usable.any():
            raise DataError(
                "no text has any tokens",
                where=table.origin,
                do="is it text that the model can read?",
            )
        return self.encode(tokenizer, table.select(np.flatnonzero(usable)), data, config)


def encode_texts(
    tokenizer: Tokenizer,
    texts: list[str],
    pairs: list[str] | None,
    *,
    max_length: int,
    cut: str,
    config: ModelConfig,
) -> Examples:
    examples = encode(
        tokenizer,
        texts,
        pairs,
        max_length=min(max_length, config.max_length),
        cut=cut,
        segments=config.n_segments > 1,
    )
    largest = int(examples.tokens.max(initial=0))
    known = max(config.vocab_size, config.decoder_vocab_size)
    if largest >= known:
        raise ModelError(
            f"the tokenizer gives {tokenizer.token(largest)!r} the number {largest:,}; the model"
            f" has {known:,} tokens",
            do="the tokenizer is of another model: put its own back",
        )
    return examples


def resolve_pooling(pooling: Pooling, config: ModelConfig) -> Pooling:
    """`auto` as what it is for this model; SettingsError for one that cannot work on it."""
    if pooling == "first" and config.causal:
        raise SettingsError(
            "task.pooling = first: a causal decoder's first token sees nothing but itself",
            do="use task.pooling=last, whose state has read the whole text, or mean",
        )
    return ("last" if config.causal else "mean") if pooling == "auto" else pooling


class PooledHead(nn.Module):
    """One vector a text, then a linear map: (T, D), or (N, D) where it reads one token of each, ->
    (N, n_outputs).

    mean: the average of all hidden states. first: BERT's pooler, tanh(W h_first + b) (Devlin et al.
    2018), or with the family's own activation. Either passes a map, an activation and a norm where
    the family's classifier has them (ModernBERT, Warner et al. 2024). last: the last token's state
    (Radford et al. 2018), and no bias, as published.
    """

    def __init__(
        self, config: ModelConfig, settings: TaskSettings, n_outputs: int, pad: int | None = None
    ) -> None:
        super().__init__()
        self.pooling = resolve_pooling(settings.pooling, config)
        self.pad = pad
        transform = config.classifier_transform and self.pooling != "last"
        first = self.pooling == "first" and not transform
        self.pooler = nn.Linear(config.dim, config.dim) if first else None
        self.dense = (
            nn.Linear(config.dim, config.dim, bias=config.dense_bias) if transform else None
        )
        self.norm = make_norm(config, config.dim) if transform else None
        self.activation = ACTIVATIONS[
            config.head_activation if transform else config.pooler_activation
        ]
        self.dropout = Dropout(settings.dropout)
        self.out = nn.Linear(config.dim, n_outputs, bias=self.pooling != "last")

    def reads(self, batch: Batch) -> Tensor | None:
        """Where the one token of each text stands that is read, (N,); None: all are."""
        if self.pooling == "mean":
            return None
        return last_tokens(batch, self.pad) if self.pooling == "last" else first_tokens(batch)

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        pooled = pool_mean(hidden, batch) if self.pooling == "mean" else hidden
        if self.pooler is not None:
            pooled = self.activation(self.pooler(pooled))
        elif self.dense is not None and self.norm is not None:
            pooled = self.norm(self.activation(self.dense(pooled)))
        pooled = self.dropout(pooled)
        # a score of 258.3 is 258 or 260 in bf16
        with torch.autocast(pooled.device.type, enabled=False):
            bias = None if self.out.bias is None else self.out.bias.float()
            return F.linear(pooled.float(), self.out.weight.float(), bias)


class TaskModel(nn.Module):
    """A Transformer body with a task's head: Batch -> (N, n_outputs). pad: a token that a text's
    end does not count."""

    def __init__(
        self, config: ModelConfig, task: Task, seed: int = 0, pad: int | None = None
    ) -> None:
        super().__init__()
        self.body = Transformer(config)
        self.head = PooledHead(config, task.settings, task.n_outputs, pad)
        initialise(self.head, config.init_std, seed)

    def forward(self, batch: Batch) -> Tensor:
        if any(not length for _, _, length in batch.groups):
            raise DataError(
                "a text has no tokens",
                do="leave empty texts out: there is nothing in them to judge",
            )
        out: Tensor = self.head(
            self.body(*batch.inputs, query_positions=self.head.reads(batch)), batch
        )
        return out
