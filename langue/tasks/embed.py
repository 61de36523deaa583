"""Training of text embeddings: takes pairs of texts with similarity scores, or queries with
positive and negative documents; returns one vector for each text, close to those of texts with the
same meaning.

A bi-encoder (Reimers and Gurevych 2019, arXiv:1908.10084): one network encodes each text on its own
and pools its hidden states. The saved folder is also a sentence-transformers model.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from langue.data.batch import Batch, Examples, examples_of, parts_of
from langue.data.encode import encode_texts
from langue.data.encoded import Encoded
from langue.data.loader import BatchSource, RowGroups
from langue.data.pooling import VectorHead
from langue.errors import DataError, ModelError, SettingsError
from langue.hub.checkpoint import Checkpoint
from langue.hub.family import Family
from langue.hub.sentence_transformers import (
    Normalize,
    lower_cased,
    read_sentence_input,
    read_sentence_pooling,
    write_sentence_modules,
)
from langue.model.config import ModelConfig
from langue.model.heads import Head, resolve_pooling
from langue.runtime import world_size
from langue.settings.sections import DataSettings, Settings
from langue.statistics import retrieval
from langue.statistics.compare import Systems, systems_of, systems_of_scores
from langue.statistics.metrics import Measure, plain, regression_measure
from langue.tasks import embedding_losses as losses
from langue.tasks import judgement
from langue.tasks.columns import COMPARED_SYNONYMS, Columns
from langue.tasks.embedding_options import COMPARE_ROWS, LOSSES, NEED_NEGATIVES, EmbedOptions
from langue.tasks.embedding_rows import (
    Gold,
    count_negatives,
    numbers_of,
    read_row,
    scale_of,
    score_bits_of,
    score_max,
    shown,
    texts_of_item,
)
from langue.tasks.judge_embeddings import (
    bm25_ranks,
    collection,
    search_measure,
    search_metrics,
    similarities,
    tfidf_similarities,
    worst_searches,
    worst_similarities,
)
from langue.tasks.judgement import Judgement
from langue.tasks.objective import Outcome
from langue.tasks.task import Baseline, Task, rows_with_tokens
from langue.text.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from langue.text.read.source import Table

NEGATIVES = ("negative", "negatives", *(f"negative_{number}" for number in range(1, 11)))
DEV_ROWS = 64  # rows that form one batch for the loss on dev
SIMILARITY = ("spearman", "pearson")


class Embed(Task):
    """Bi-encoder embeddings.

    Golds are a list of `Gold`; predictions are a list of arrays (k, D), one for each row: the
    vectors of its query, its positive and its negatives.
    """

    name = "embed"
    result = "vectors"
    Options = EmbedOptions
    columns = Columns(
        required=("text", "pair"),
        target="score",
        optional=("pair", "score", *NEGATIVES),
        proportional=False,
        together="text",
        needed_to_predict=("text",),
        synonyms=COMPARED_SYNONYMS,
    )
    settled_options = {
        "loss": ("auto",),
        "pooling": ("auto",),
        **dict.fromkeys(
            ("normalize", "score_max", "query_prompt", "document_prompt"), (None, "none", "None")
        ),
    }
    takes_texts = False
    baseline_learns = False
    settings: EmbedOptions

    def __init__(
        self,
        settings: EmbedOptions,
        *,
        has_scores: bool,
        prompts: Mapping[str, str] | None = None,
        default_prompt: str | None = None,
        lower_case: bool = False,
    ) -> None:
        """has_scores: whether the metric is correlation with scores of pairs, rather than
        retrieval. prompts, default_prompt, lower_case: as in a sentence-transformers folder.
        """
        self.settings = settings
        self.has_scores = has_scores
        self.prompts = dict(prompts or {})
        self.default_prompt = default_prompt
        self.lower_case = lower_case
        self._judge_by("spearman" if has_scores else "ndcg@10")
        # whether the first evaluated rows decide between correlation and retrieval
        self._metric_is_open = False
        # loaded from a finished run; then scores on any scale can be evaluated
        self._is_trained = False
        self._score_scale = 0.0  # scale of the scores under evaluation; 0: task.score_max
        self._max_length = 0  # max_length of a published folder, in tokens; 0: data.max_length
        self._notes: list[str] = []

    def _judge_by(self, metric: str) -> None:
        self.main_metric = self.primary_metric = self.best = metric

    # --- what the training rows define ---

    @classmethod
    def fit(cls, train: "Table", options: EmbedOptions) -> Self:
        golds: list[Gold] = cls.read_targets(train, options)
        scored = any(gold.scores for gold in golds)
        kind = "negatives" if any(len(gold.documents) > 1 for gold in golds) else "pairs"
        if scored or kind == "pairs":
            kind += " with scores" if scored else " without scores"
        possible = LOSSES[kind]
        loss = possible[0] if options.loss == "auto" else options.loss
        if loss not in possible:
            raise SettingsError(
                f"task.loss = {loss} does not learn from {kind}, which the training rows are",
                do=f"use {' or '.join(possible)}, or give other columns",
            )
        settled: dict[str, Any] = {"loss": loss}
        task = cls(options, has_scores=kind == "pairs with scores")
        if task.has_scores:
            settled["score_max"] = score_max(golds, options.score_max, train)
            if settled["score_max"] != 1:
                task._notes.append(
                    f"scores are divided by {settled['score_max']:g} (task.score_max), which makes"
                    " them cosines"
                )
        task.settings = options.model_copy(update=settled)
        return task

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        task = cls(
            cls.options_of(saved["settings"]),
            has_scores=bool(saved["has_scores"]),
            prompts={str(name): str(text) for name, text in saved["prompts"].items()},
            default_prompt=saved["default_prompt"],
            lower_case=bool(saved["lower_case"]),
        )
        task._is_trained = True
        return task

    def to_dict(self) -> dict[str, Any]:
        return {
            "settings": self.settings.model_dump(),
            "has_scores": self.has_scores,
            "prompts": self.prompts,
            "default_prompt": self.default_prompt,
            "lower_case": self.lower_case,
        }

    def use(self, checkpoint: Checkpoint) -> None:
        if not self._is_trained:
            self._adopt_folder(checkpoint.folder, checkpoint.config)

    def _adopt_folder(self, folder: Path, config: ModelConfig) -> None:
        """Adopt pooling, normalization and prompts of a sentence-transformers folder for the
        options that are not set.
        """
        said = read_sentence_input(folder)
        chosen: dict[str, Any] = {}
        if said is not None:
            found = read_sentence_pooling(folder, config.out_dim)
            assert found is not None
            others = [
                type(step).__name__
                for step in found.steps
                if not isinstance(step, Normalize | nn.Identity)
            ]
            if others or len(found.modes) > 1 or not found.include_prompt:
                what = others[0] if others else "several poolings" if found.include_prompt else ""
                raise ModelError(
                    f"a model with {what or 'a pooling that leaves prompts out'} is not trained"
                    " further or judged here, but encodes",
                    where=str(folder),
                    do="begin with another, or take its modules.json away and choose task.pooling",
                )
            chosen["pooling"] = found.modes[0]
            chosen["normalize"] = any(isinstance(step, Normalize) for step in found.steps)
            self.prompts = dict(said.prompts)
            self.default_prompt = said.default_prompt
            self.lower_case = said.lower_case
            default = said.prompts.get(said.default_prompt or "", "")
            chosen["query_prompt"] = default if self.has_scores else said.prompts["query"]
            chosen["document_prompt"] = default if self.has_scores else said.prompts["document"]
        usual = {"normalize": self.settings.loss != "margin_mse", "query_prompt": ""}
        for name, value in (usual | chosen).items():
            if getattr(self.settings, name) in (None, "auto"):
                self.settings = self.settings.model_copy(update={name: value})
        if self.settings.document_prompt is None:
            same = {"document_prompt": self.settings.query_prompt}
            self.settings = self.settings.model_copy(update=same)
        if self.settings.pooling in ("auto", "first"):
            pooling = resolve_pooling(self.settings.pooling, config)
            self.settings = self.settings.model_copy(update={"pooling": pooling})
        odd = [size for size in self.settings.matryoshka if not 0 < size < config.out_dim]
        if odd:
            raise SettingsError(
                f"task.matryoshka = {odd[0]}: vectors of this model have {config.out_dim} elements",
                do=f"give sizes from 1 to {config.out_dim - 1}",
            )

    def has_outputs_of(self, saved: Mapping[str, Any]) -> bool:
        return True  # the head has no weights

    def facts(self) -> dict[str, Any]:
        chosen = self.settings
        return {"pooling": chosen.pooling, "loss": chosen.loss, "normalize": chosen.normalize}

    def notes(self) -> list[str]:
        return self._notes

    # --- published folders ---

    @classmethod
    def from_folder(cls, folder: Path, config: ModelConfig) -> Self | None:
        said = read_sentence_input(folder)
        if said is None:
            return None
        task = cls(EmbedOptions(), has_scores=False)
        task._metric_is_open = True
        task._max_length = said.max_length or 0
        task._adopt_folder(folder, config)
        return task

    def published(self) -> dict[str, Any]:
        return {}

    def head_kind(self, family: Family) -> None:
        """No head class: the folder is published as the body alone."""

    def describe_transformers_support(self, family: Family, data: DataSettings) -> str:
        return (
            "transformers: AutoModel loads the body; sentence-transformers gives the same vectors,"
            " of longer texts those of the first max_length tokens."
        )

    def write_beside(self, folder: Path, config: ModelConfig, data: DataSettings) -> None:
        chosen = self.settings
        default = self.default_prompt
        prompts = {"query": chosen.query_prompt or "", "document": chosen.document_prompt or ""}
        if self.has_scores:  # there is only one kind of text
            prompts = {}
        if self.has_scores and chosen.query_prompt:
            own = self.prompts | {"similarity": chosen.query_prompt}
            default = next(name for name, text in own.items() if text == chosen.query_prompt)
            prompts = {default: chosen.query_prompt}
        write_sentence_modules(
            folder,
            size=config.out_dim,
            mode=chosen.pooling,
            normalize=bool(chosen.normalize),
            max_length=min(data.max_length, config.longest),
            lower_case=self.lower_case,
            prompts={"query": "", "document": ""} | self.prompts | prompts,
            default_prompt=default,
            similarity="dot" if chosen.loss == "margin_mse" else "cosine",
        )

    # --- rows ---

    @classmethod
    def raw_targets(cls, table: "Table") -> list[Any]:
        """Return (text, pair, negatives, score) of each row; the last two are empty tuples if the
        table has no such columns.
        """
        there = table.rows.column_names
        texts = table.column("text")
        pairs = table.column_if_there("pair") or [None] * len(texts)
        columns = [table.column(name) for name in NEGATIVES if name in there]
        negatives: list[tuple[Any, ...]] = [()] * len(texts)
        if columns:
            negatives = list(zip(*columns, strict=True))
        column = table.numbers("score") if "score" in there else None
        scores: list[tuple[Any, ...]] = [()] * len(texts)
        if column is not None:
            scores = [(score,) for score in column]
        return list(zip(texts, pairs, negatives, scores, strict=True))

    @classmethod
    def read_target(cls, value: Any, options: EmbedOptions, where: Callable[[], str]) -> Gold:
        text, pair, negatives, score = value
        return read_row(text, pair, negatives, score, where)

    def known_target(self, target: Gold, where: Callable[[], str]) -> Gold:
        loss = self.settings.loss
        if loss in NEED_NEGATIVES and len(target.documents) < 2:
            do = "give one, or use task.loss=in_batch"
            raise DataError("the row has no negative", where=where(), do=do)
        if (self.has_scores or loss == "margin_mse") and not target.scores:
            raise DataError(
                "the row has no score, and training had", where=where(), do="give it a score"
            )
        if not self.has_scores:
            return target
        most = self._score_scale or self.settings.score_max or 1.0
        if not self._score_scale and not -most <= target.scores[0] <= most:
            raise DataError(
                f"the score {target.scores[0]:g} is not on the scale of training, which ends at"
                f" {most:g}",
                where=where(),
                do="correct it, or say where the scale ends: task.score_max=...",
            )
        return replace(target, scores=tuple(score / most for score in target.scores))

    @classmethod
    def usable_rows(cls, table: "Table", options: EmbedOptions, ready: Task | None) -> list[int]:
        """Return the usable rows; if the loss needs negatives, training rows without one are
        excluded.
        """
        usable = super().usable_rows(table, options, ready)
        if ready is not None:
            return usable
        raw = cls.raw_targets(table)
        golds = {row: cls.read_target(raw[row], options, str) for row in usable}
        taught = any(gold.scores and len(gold.documents) > 1 for gold in golds.values())
        if options.loss in NEED_NEGATIVES or options.loss == "auto" and taught:
            return [row for row, gold in golds.items() if len(gold.documents) > 1]
        return usable

    def golds(self, table: "Table") -> list[Gold]:
        if self._metric_is_open:
            fitted = self.fit(table, EmbedOptions())
            self.has_scores = fitted.has_scores
            of_rows = {name: getattr(fitted.settings, name) for name in ("loss", "score_max")}
            self.settings = self.settings.model_copy(update=of_rows)
            self._judge_by(fitted.main_metric)
            self._metric_is_open = False
        if self.has_scores and self._is_trained:
            read = [gold.scores for gold in self.read_targets(table, self.settings) if gold.scores]
            self._score_scale = scale_of(max((abs(each[0]) for each in read), default=1.0))
        found: list[Gold] = super().golds(table)
        counts = [count_negatives(negatives) for _, _, negatives, _ in self.raw_targets(table)]
        twice = sum(
            count - len(gold.documents) + 1 for count, gold in zip(counts, found, strict=True)
        )
        if twice:
            self._notes.append(
                f"{table.origin}: {twice:,} negatives stand twice in their row and are taken once"
            )
        return found

    @classmethod
    def items(cls, table: "Table") -> list[Any]:
        """Return pairs if the table has them, otherwise single texts."""
        texts = table.column("text")
        pairs = table.column_if_there("pair")
        return texts if pairs is None else list(zip(texts, pairs, strict=True))

    @classmethod
    def texts(cls, table: "Table") -> list[str]:
        """Return both texts of scored pairs, otherwise only the queries, because the same document
        may answer many of them.
        """
        texts = table.column("text")
        pairs = table.column_if_there("pair")
        if pairs is None or "score" not in table.rows.column_names:
            return texts
        return [f"{text}\n{pair}" for text, pair in zip(texts, pairs, strict=True)]

    def encode(
        self,
        tokenizer: Tokenizer,
        table: "Table",
        golds: Any,
        data: DataSettings,
        config: ModelConfig,
    ) -> tuple["Table", Encoded]:
        rows = [(gold.query, *gold.documents) for gold in golds]
        encoded = self._encoded(rows, golds, tokenizer, data, config)
        assert encoded.row is not None
        bare = np.zeros(len(rows), bool)
        bare[encoded.row[encoded.examples.lengths == 0]] = True
        kept = rows_with_tokens(table, ~bare, data, lambda row: "one of its texts has no tokens")
        if kept is not None:
            return self.encode_rows(kept, tokenizer, table, golds, data, config)
        if encoded.examples.cut.any():
            self._notes.append(f"{table.origin}: longer texts lose their end, not their middle")
        return table, encoded

    def encode_items(
        self,
        items: list[Any],
        tokenizer: Tokenizer,
        data: DataSettings,
        config: ModelConfig,
        as_texts: Callable[[list[Any]], Examples],
    ) -> Encoded:
        """Encode items: texts, (text, document) pairs, or mappings with `text` and optionally
        `pair`.
        """
        rows = [texts_of_item(item, number) for number, item in enumerate(items, start=1)]
        return self._encoded(rows, None, tokenizer, data, config)

    def _encoded(
        self,
        rows: Sequence[tuple[str, ...]],
        golds: list[Gold] | None,
        tokenizer: Tokenizer,
        data: DataSettings,
        config: ModelConfig,
    ) -> Encoded:
        """Encode one sequence for each text of a row, the query first."""
        query_prompt = self.settings.query_prompt or ""
        document_prompt = self.settings.document_prompt or ""
        flat: list[str] = []
        prompted: list[str] = []
        for query, *documents in rows:
            flat += [query, *documents]
            prompted.append(query_prompt + query)
            prompted += [document_prompt + text for text in documents]
        sizes = [len(texts) for texts in rows]
        row = np.repeat(np.arange(len(rows)), sizes)  # (n,)
        place = np.concatenate([np.arange(size) for size in sizes] or [row])  # (n,)
        examples = encode_texts(
            lower_cased(tokenizer) if self.lower_case else tokenizer,
            prompted,
            None,
            max_length=min(data.max_length, self._max_length or data.max_length),
            cut="head",
            config=config,
        )
        if golds is None:
            return Encoded(examples, len(rows), row=row)
        targets = np.stack([row, place, numbers_of(flat), score_bits_of(golds)], axis=1)  # (n, 4)
        return Encoded(examples.with_targets(targets), len(rows), golds, row)

    def balance(self, golds: Any) -> dict[str, float]:
        if self.has_scores:
            scores = [gold.scores[0] for gold in golds]
            smallest, median, largest = (float(q) for q in np.quantile(scores, (0, 0.5, 1)))
            return {
                "smallest score": smallest,
                "median score": median,
                "largest score": largest,
            }
        texts: set[str] = set()
        for gold in golds:
            texts.update(gold.documents)
        queries = {gold.query for gold in golds}
        negatives = sum(len(gold.documents) - 1 for gold in golds)
        counts = {"queries": float(len(queries)), "documents": float(len(texts))}
        return counts | ({"negatives": float(negatives)} if negatives else {})

    def show_target(self, gold: Gold) -> str:
        if self.has_scores:
            return f"{gold.scores[0]:g} to: {shown(gold.documents[0])}"
        return " | not: ".join(map(shown, gold.documents))

    # --- training ---

    def head(self, config: ModelConfig, pad: int | None = None) -> Head:
        return VectorHead(config, self.settings.pooling, bool(self.settings.normalize))

    def batches(self, train: Encoded, settings: Settings) -> BatchSource:
        compares = self.settings.loss in COMPARE_ROWS
        if world_size() > 1 and (compares or self.settings.cached_tokens):
            what = (
                f"task.loss = {self.settings.loss} compares the rows of a batch"
                if compares
                else "task.cached_tokens passes a batch twice"
            )
            raise SettingsError(
                f"{what}, which {world_size()} processes do not have together",
                do="start one process, with a larger train.batch_examples",
            )
        return RowGroups(train, settings.train, by_length=not compares)

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
        assert batch.targets is not None
        return self._loss(outputs, batch.targets)

    def _loss(self, vectors: Tensor, targets: Tensor) -> losses.Loss:
        """Return the loss of vectors (N, D) with the targets (N, 4) from `_encoded`, summed over
        the Matryoshka sizes.
        """
        compared = losses.Compared.of_batch(vectors.float(), targets)
        total, count = self._loss_of(compared)
        for size in self.settings.matryoshka:
            shorter = compared.shortened(size, bool(self.settings.normalize))
            loss, _ = self._loss_of(shorter)
            total = total + loss
        return total, count

    def _loss_of(self, compared: losses.Compared) -> losses.Loss:
        chosen = self.settings
        if chosen.loss == "cosine":
            return losses.cosine(compared)
        if chosen.loss == "cosent":
            return losses.cosent(compared, chosen.scale)
        if chosen.loss == "triplet":
            return losses.triplet(compared, chosen.margin)
        if chosen.loss == "margin_mse":
            return losses.margin_mse(compared)
        return losses.in_batch(compared, chosen.scale, chosen.symmetric)

    def forward(self, model: nn.Module, batch: Batch) -> Outcome:
        if not self.settings.cached_tokens:
            return super().forward(model, batch)
        assert batch.targets is not None
        vectors = []
        again = []
        for part in parts_of(batch, self.settings.cached_tokens):
            make = losses.repeatable(model, part)
            with torch.no_grad():
                vectors.append(make())
            again.append(make)
        loss, count = losses.cached(vectors, again, partial(self._loss, targets=batch.targets))
        return Outcome(loss, count)

    def outputs_to_measure(self, outputs: Tensor, batch: Batch) -> Any:
        """Return cosines and scores if the metric is computed from single pairs, otherwise None."""
        if not self.has_scores or batch.targets is None:
            return None
        compared = losses.Compared.of_batch(outputs.detach().float(), batch.targets)
        return compared.cosines, compared.scores

    def train_metric(self, outcomes: list[Outcome], loss: float) -> float | None:
        if any(each.outputs is None for each in outcomes):
            return None
        cosines = torch.cat([each.outputs[0] for each in outcomes]).cpu().numpy()  # (N,)
        scores = torch.cat([each.outputs[1] for each in outcomes]).cpu().numpy()  # (N,)
        measure = regression_measure(scores, cosines, SIMILARITY)
        return plain(measure, len(scores))[self.primary_metric]

    def metric_names(self) -> list[str]:
        return list(SIMILARITY if self.has_scores else retrieval.METRICS)

    def default_best(self) -> str:
        return self.main_metric

    # --- predicting ---

    def decode(self, outputs: Tensor, batch: Batch) -> Any:
        return outputs.float().cpu().numpy()

    def merge(self, sequences: Any, encoded: Encoded) -> list[NDArray[np.float32]]:
        if not encoded.n_rows:
            return []
        assert encoded.row is not None
        return np.split(sequences, np.searchsorted(encoded.row, np.arange(1, encoded.n_rows)))

    def apply(self, model: nn.Module, encoded: Encoded, **options: Any) -> tuple[Any, float | None]:
        """Encode each distinct text once and copy its vector to all rows that contain it.

        The loss is computed afterwards, because it needs whole rows, and a prediction batch may
        contain only part of one.
        """
        if encoded.golds is None or not encoded.n_rows:
            return super().apply(model, replace(encoded, golds=None), **options)
        assert encoded.row is not None and encoded.examples.targets is not None
        _, place, text, _ = encoded.examples.targets.T
        # the same text has a different prompt as a document than as a query
        keys = 2 * text + (place > 0)
        _, first, same = np.unique(keys, return_index=True, return_inverse=True)
        tokens = np.split(encoded.examples.tokens, encoded.examples.starts[1:-1])
        once = examples_of([tokens[sequence] for sequence in first])
        every = Encoded(once, len(first), row=np.arange(len(first)))
        vectors, _ = super().apply(model, every, **options)
        if (progress := options.get("progress")) is not None:
            progress(len(keys) - len(first))
        predictions = self.merge(np.concatenate(vectors)[same], encoded)
        total = count = 0.0
        for begin in range(0, encoded.n_rows, DEV_ROWS):
            end = min(begin + DEV_ROWS, encoded.n_rows)
            own = slice(*np.searchsorted(encoded.row, (begin, end)))
            vectors = torch.from_numpy(np.concatenate(predictions[begin:end]))
            loss, number = self._loss(vectors, torch.from_numpy(encoded.examples.targets[own]))
            total += float(loss)
            count += number
        return predictions, total / count if count else None

    def show(self, prediction: NDArray[np.float32], top: int | None) -> list[dict[str, Any]]:
        """Return the similarity of a pair, or the vector of a single text."""
        if len(prediction) == 1:
            return [{"embedding": prediction[0].tolist()}]
        return [{"label": "similarity", "score": float(similarities([prediction])[0])}]

    # --- judging ---

    def measure(self, golds: Any, predictions: Any) -> Measure:
        if self.has_scores:
            true = [gold.scores[0] for gold in golds]
            return regression_measure(true, similarities(predictions), SIMILARITY)
        return search_measure(search_metrics(golds, predictions))

    def judge(
        self, golds: Any, predictions: Any, main: str | None = None, *, seed: int = 0
    ) -> Judgement:
        found = super().judge(golds, predictions, main, seed=seed)
        sections: list[judgement.Section] = []
        if self.settings.matryoshka:
            sections.append(self._by_size(golds, predictions))
        if self.has_scores:
            true = np.asarray([gold.scores[0] for gold in golds])
            sections.append(judgement.scatter(true, similarities(predictions), seed))
            return replace(found, sections=sections)
        whole = collection(golds)
        return replace(
            found,
            sections=sections,
            notes=(
                *found.notes,
                f"{len(whole.queries):,} queries search the {len(whole.documents):,} documents of"
                " the split.",
            ),
        )

    def _by_size(self, golds: Any, predictions: Any) -> judgement.Table:
        """Return the metrics of vectors truncated to each trained size."""
        rows: list[list[judgement.Cell]] = []
        for size in (predictions[0].shape[-1], *sorted(self.settings.matryoshka, reverse=True)):
            found = self.metrics(golds, [each[:, :size] for each in predictions])
            rows.append([str(size), *(found[name] for name in self.metric_names())])
        return judgement.Table(
            title="By size of the vectors",
            columns=("elements", *self.metric_names()),
            rows=rows,
            note="Shorter ones are the first elements of the whole: encode(texts, dim=...).",
        )

    def mistakes(
        self, table: "Table", golds: Any, predictions: Any, limit: int = 20
    ) -> judgement.Examples | None:
        if not self.has_scores:
            return worst_searches(table, golds, predictions, limit)
        return worst_similarities(table, golds, predictions, limit)

    def baseline(
        self,
        train: tuple["Table", Any],
        test: tuple["Table", Any],
        *,
        metric: str,
        as_model: bool = True,
    ) -> Baseline:
        """Return TF-IDF cosines for scored pairs, and BM25 for retrieval."""
        began = time.perf_counter()
        golds: list[Gold] = test[1]
        predictions: Any
        if self.has_scores:
            name = "cosine of tf-idf"
            predictions = tfidf_similarities(train[1], golds)
        else:
            name = "BM25"
            predictions = bm25_ranks(golds)
        metrics = self.metrics(golds, predictions)
        return Baseline(name, metrics, predictions, round(time.perf_counter() - began, 3))

    def systems(self, golds: Any, predictions: Any, baseline: Baseline, metric: str) -> Systems:
        if self.has_scores:
            true = [gold.scores[0] for gold in golds]
            first, second = map(similarities, (predictions, baseline.predictions))
            return systems_of_scores(true, first, second, metric)
        own, theirs = (search_metrics(golds, each) for each in (predictions, baseline.predictions))
        both = {name: np.concatenate([own[name], theirs[name]]) for name in own}
        return systems_of(
            search_measure(own), search_measure(theirs), search_measure(both), len(golds)
        )
