"""The base of tasks that predict one vector for a whole text or pair of texts: pooled hidden states
and a linear head.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from langue.data.batch import Batch
from langue.data.encode import encode_texts
from langue.data.encoded import Encoded
from langue.errors import ModelError
from langue.hub.checkpoint import classes_of
from langue.hub.family import SEQUENCE, Family
from langue.model.config import ModelConfig
from langue.model.heads import Head, PooledHead, resolve_pooling
from langue.settings.sections import DataSettings, Section
from langue.tasks import judgement
from langue.tasks.objective import Outcome
from langue.tasks.task import Task, rows_with_tokens
from langue.text.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from langue.text.read.source import Table


class PooledOptions(Section):
    pooling: Literal["auto", "mean", "first", "last"] = Field(
        default="auto",
        description="pooling of a text's hidden states; auto: last for a causal decoder, else mean",
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, description="dropout before the head")


class PooledTask(Task):
    """A task whose golds (n, ...) and predictions (n, n_outputs) are arrays."""

    settled_options = {"pooling": ("auto",)}
    settings: PooledOptions

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """Number of outputs of the head for each text."""

    def adapt_to(self, config: ModelConfig) -> None:
        pooling = resolve_pooling(self.settings.pooling, config)
        self.settings = self.settings.model_copy(update={"pooling": pooling})

    def go_on_from(self, saved: Mapping[str, Any]) -> None:
        if self.settings.pooling == "auto" and saved.get("task") == self.name:
            before = type(self).from_dict(saved).settings.pooling
            self.settings = self.settings.model_copy(update={"pooling": before})

    def has_outputs_of(self, saved: Mapping[str, Any]) -> bool:
        pooling = saved.get("settings", {}).get("pooling")
        return super().has_outputs_of(saved) and pooling == self.settings.pooling

    def facts(self) -> dict[str, Any]:
        return {"pooling": self.settings.pooling}

    def head(self, config: ModelConfig, pad: int | None = None) -> Head:
        chosen = self.settings
        return PooledHead(
            config, self.n_outputs, pooling=chosen.pooling, dropout=chosen.dropout, pad=pad
        )

    def golds(self, table: "Table") -> Any:
        return np.asarray(super().golds(table))

    def encode(
        self,
        tokenizer: Tokenizer,
        table: "Table",
        golds: Any,
        data: DataSettings,
        config: ModelConfig,
    ) -> tuple["Table", Encoded]:
        examples = encode_texts(
            tokenizer,
            table.column("text"),
            table.column("pair") if "pair" in table.rows.column_names else None,
            max_length=data.max_length,
            cut=data.truncation,
            config=config,
        )
        kept = rows_with_tokens(table, examples.lengths > 0, data)
        if kept is None:
            return table, Encoded.of(examples, golds)
        rest = None if golds is None else golds[kept]
        return self.encode(tokenizer, table.select(kept), rest, data, config)

    def outputs_to_measure(self, outputs: Tensor, batch: Batch) -> Any:
        return batch.targets, outputs.detach()

    def train_metric(self, outcomes: list[Outcome], loss: float) -> float | None:
        targets = torch.cat([outcome.outputs[0] for outcome in outcomes])
        outputs = torch.cat([outcome.outputs[1] for outcome in outcomes])
        predictions = self.predict(outputs)
        return self.metrics(targets.cpu().numpy(), predictions)[self.primary_metric]

    @abstractmethod
    def predict(self, outputs: Tensor) -> Any:
        """Return predictions (N, n_outputs), probabilities or scores, from outputs (N,
        n_outputs).
        """

    def decode(self, outputs: Tensor, batch: Batch) -> Any:
        return self.predict(outputs)

    # --- published sequence classifiers ---

    def head_kind(self, family: Family) -> str:
        return family.head_kind(self.settings.pooling)

    def published_head(self, family: Family, pad: int | None) -> dict[str, Any]:
        pooling = self.settings.pooling
        if family.head_kind(pooling) != SEQUENCE:
            return {}
        words = dict(family.poolings[pooling])
        # always written, since the default of a class may be another token
        return words | ({"pad_token_id": pad} if pooling == "last" else {})

    def describe_transformers_support(self, family: Family, data: DataSettings) -> str:
        if SEQUENCE not in family.heads:
            return (
                f"transformers: no class for this head on {family.name}; AutoModel loads the body,"
                " the head stays langue's, and AutoModelForSequenceClassification refuses the"
                " folder."
            )
        if family.head_kind(self.settings.pooling) == SEQUENCE:
            cut = f"of texts of more than {data.max_length} tokens it is given "
            if data.truncation == "head":
                return (
                    "transformers: AutoModelForSequenceClassification gives the same logits;"
                    f" {cut}truncation=True."
                )
            kept = {"head-tail": "beginning and end", "tail": "end"}[data.truncation]
            return (
                "transformers: AutoModelForSequenceClassification gives the same logits where"
                f" nothing is cut; {cut}the beginning by truncation=True, where here the {kept} is"
                " kept (data.truncation=head keeps the same)."
            )
        return (
            f"transformers: its {family.architectures[SEQUENCE]} cannot express"
            f" {self.settings.pooling} pooling, so AutoModel loads the body and the head stays"
            f" langue's; train with task.pooling={' or '.join(family.poolings)} where you need"
            " AutoModelForSequenceClassification, which refuses this folder."
        )


def worst_mistakes(
    table: "Table",
    badness: NDArray[Any],
    wrong: NDArray[np.bool_],
    limit: int,
    values: Callable[[int], tuple[Any, ...]],
) -> list[judgement.Example]:
    """Return the wrong ones of the rows (n,), worst first, each with its text, its pair if there is
    one, and `values(row)`.
    """
    order = sorted(np.flatnonzero(wrong).tolist(), key=lambda row: (-badness[row], row))[:limit]
    chosen = table.select(order)
    columns = [chosen.column(name) for name in ("text", "pair") if name in table.rows.column_names]
    rows = []
    for row, texts in zip(order, zip(*columns, strict=True), strict=True):
        passages = [judgement.Passage(text) for text in texts]
        rows.append(judgement.Example(passages, values(row)))
    return rows


def published_outputs(
    published: Mapping[str, Any], family: Family
) -> tuple[str, list[str], str | None] | None:
    """Return (pooling, names of the outputs, problem type) of a sequence classifier published for
    `transformers`; None for any other model.
    """
    classes = [name for name in classes_of(published) if name.endswith("ForSequenceClassification")]
    if not classes or SEQUENCE not in family.heads:
        return None
    # each pooling is identified by some keys of config.json with their values
    values_of: dict[str, list[str]] = {}
    fits = []
    for pooling, wanted in family.poolings.items():
        if all(published.get(key, value) == value for key, value in wanted.items()):
            fits.append(pooling)
        for key, value in wanted.items():
            values_of.setdefault(key, []).append(str(value))
    if not fits:
        key = next(iter(values_of))
        known = ", ".join(chain.from_iterable(values_of.values()))
        raise ModelError(
            f"config: {key} = {published.get(key)!r} is not known", do=f"known: {known}"
        )
    labels = published.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    names = [str(labels[key]) for key in sorted(labels, key=int)]
    return fits[0], names, published.get("problem_type")
