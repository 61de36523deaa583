"""Text-to-text generation: takes a source; returns a translation, a summary or any other target
text.

An encoder-decoder encodes the source and generates the target (Sutskever et al. 2014; Vaswani et
al. 2017); a decoder continues the source, which is put between `task.prefix` and `task.suffix`.
Translations are evaluated by BLEU and chrF, other texts by ROUGE.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from langue.data.batch import Examples, examples_of
from langue.data.encode import encode_texts
from langue.data.encoded import Encoded
from langue.errors import DataError
from langue.hub.family import Family
from langue.model.config import ModelConfig
from langue.runtime import evaluating
from langue.settings.sections import DataSettings
from langue.statistics import rouge, translation
from langue.statistics.metrics import Measure
from langue.statistics.ngrams import tokens as words
from langue.statistics.sentences import sentences
from langue.tasks import judgement
from langue.tasks.columns import Columns
from langue.tasks.judgement import Judgement
from langue.tasks.objective import Metrics
from langue.tasks.task import Baseline, rows_with_tokens
from langue.tasks.writing import (
    Prompt,
    WritingOptions,
    WritingTask,
    Written,
    end_token,
    labelled_examples,
    prompt_and_target,
)
from langue.text.read.parse import is_missing, replace_lone_surrogates
from langue.text.tokenizers.flags import frame_of
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.unknown import Lost, unknown_in

if TYPE_CHECKING:
    from langue.text.read.source import Table

# The key of the generated text in an answer, as in the pipelines of `transformers` 4.
KEYS = {"translation": "translation_text", "summary": "summary_text", "text": "generated_text"}
GRAM = 4  # n-gram length, in words, for counting repeated and copied text
TRIED = 500  # training rows on which baselines are compared
LEADS = (1, 3)  # numbers of leading source sentences that serve as a baseline summary


class Seq2SeqOptions(WritingOptions):
    output: Literal["translation", "summary", "text"] = Field(
        default="text",
        description=(
            "the kind of output: a translation is evaluated by BLEU and chrF, a summary"
            " or other text by ROUGE"
        ),
    )
    prefix: str = Field(
        default="",
        description="text before each source, such as T5's 'translate English to German: '",
    )
    suffix: str = Field(
        default="\n", description="text between a source and its target, for a decoder"
    )
    dev_examples: int = Field(
        default=200,
        ge=1,
        description="number of dev examples for which text is generated and evaluated during"
        " training",
    )


class Seq2Seq(WritingTask):
    """Generation of a target text from a source text."""

    name = "seq2seq"
    result = "text"
    Options = Seq2SeqOptions
    preset = "mbart"
    tokenizer_defaults = {"tokenizer.kind": "unigram"}
    columns = Columns(
        required=("source", "target"),
        target="target",
        proportional=False,
        together="source",
        synonyms={
            "source": ("text", "document", "article", "dialogue", "input", "question", "src"),
            "target": ("summary", "highlights", "output", "answer", "label", "tgt"),
        },
    )
    settings: Seq2SeqOptions

    def __init__(self, settings: Seq2SeqOptions, *, max_new_tokens: int | None = None) -> None:
        super().__init__(settings, max_new_tokens=max_new_tokens)
        self.key = KEYS[settings.output]
        translates = settings.output == "translation"
        if translates:
            translation.check_installed()
        self.names = translation.METRICS if translates else rouge.METRICS
        self.primary_metric = self.main_metric = self.best = self.default_best()

    # --- what the training rows define ---

    @classmethod
    def fit(cls, train: "Table", options: Seq2SeqOptions) -> Self:
        golds = cls.read_targets(train, options)
        if not golds:
            raise DataError("there are no pairs of source and target", where=train.origin)
        return cls(options)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        return cls(cls.options_of(saved["settings"]), max_new_tokens=saved["max_new_tokens"])

    def to_dict(self) -> dict[str, Any]:
        return {"max_new_tokens": self.max_new_tokens, "settings": self.settings.model_dump()}

    def describe_transformers_support(self, family: Family, data: DataSettings) -> str:
        said = super().describe_transformers_support(family, data)
        around = [repr(self.settings.prefix)] if self.settings.prefix else []
        if self.is_decoder:
            around.append(repr(self.settings.suffix))
        if not around:
            return said
        return said.replace("texts.", f"texts for a source with {' and '.join(around)}.")

    # --- rows ---

    @classmethod
    def read_target(cls, value: Any, options: Any, where: Callable[[], str]) -> tuple[str, ...]:
        """Return the references; if there are several, the first is the training target."""
        several = value if isinstance(value, list | tuple) else [value]
        texts = [replace_lone_surrogates(str(each)) for each in several if not is_missing(each)]
        texts = [text for text in texts if text.strip()]
        if not texts:
            raise DataError(
                "the target is empty",
                where=where(),
                do="fill it in or take the row out (in training: data.invalid=drop)",
            )
        return tuple(texts)

    @classmethod
    def items(cls, table: "Table") -> list[Any]:
        sources: list[Any] = table.column("source")
        return sources

    @classmethod
    def training_texts(cls, table: "Table") -> list[str]:
        targets = (cls.read_target(value, None, str)[0] for value in table.column("target"))
        return [*table.column("source"), *targets]

    def encode(
        self,
        tokenizer: Tokenizer,
        table: "Table",
        golds: Any,
        data: DataSettings,
        config: ModelConfig,
    ) -> tuple["Table", Encoded]:
        sources = table.column("source")
        targets = None if golds is None else [texts[0] for texts in golds]
        encoded = self._encoded(sources, targets, tokenizer, data, config)
        kept = rows_with_tokens(table, encoded.rows_with_tokens(), data)
        if kept is not None:
            return self.encode_rows(kept, tokenizer, table, golds, data, config)
        self._note_cut_targets(encoded, table, data)
        return table, replace(encoded, golds=golds)

    def encode_items(
        self,
        items: list[Any],
        tokenizer: Tokenizer,
        data: DataSettings,
        config: ModelConfig,
        as_texts: Callable[[list[Any]], Examples],
    ) -> Encoded:
        """Encode sources, given as strings or as token ids of whole prompts."""
        if items and not isinstance(items[0], str):
            examples = as_texts(items)
            parts = np.split(examples.tokens, examples.starts[1:-1])
            return Encoded(examples, len(items), context=[Prompt(p.tolist()) for p in parts])
        examples = as_texts([self._prompt_text(source) for source in items])
        return self._with_prompts(examples, items, tokenizer, config)

    def _prompt_text(self, source: str) -> str:
        suffix = self.settings.suffix if self.is_decoder else ""
        return f"{self.settings.prefix}{source}{suffix}"

    def _with_prompts(
        self, examples: Examples, sources: Sequence[str], tokenizer: Tokenizer, config: ModelConfig
    ) -> Encoded:
        """Return the encoded sources as prompts; for a decoder, which continues the text, without
        the tokens that end a text.
        """
        parts = [part.tolist() for part in np.split(examples.tokens, examples.starts[1:-1])]
        if config.architecture == "decoder":
            parts = [_without_end(part, tokenizer, self.ends) for part in parts]
        prompts = [Prompt(*pair) for pair in zip(parts, sources, strict=True)]
        read = replace(examples_of(parts or [[]]), cut=examples.cut, lost=examples.lost)
        return Encoded(read if parts else examples, len(parts), context=prompts)

    def _encoded(
        self,
        sources: Sequence[str],
        targets: Sequence[str] | None,
        tokenizer: Tokenizer,
        data: DataSettings,
        config: ModelConfig,
    ) -> Encoded:
        """Return the encoded sources and target labels; targets that are too long are truncated at
        the end.
        """
        room = min(data.max_length, config.longest)
        source_room = room if targets is None or not self.is_decoder else max(1, room - 1)
        read = encode_texts(
            tokenizer,
            [self._prompt_text(replace_lone_surrogates(source)) for source in sources],
            None,
            max_length=source_room,
            cut=data.truncation,
            config=config,
        )
        encoded = self._with_prompts(read, sources, tokenizer, config)
        if targets is None:
            return encoded
        labels, cut, lost = self._target_ids(targets, tokenizer, room)
        self.settle_length(examples_of(labels))
        if not self.is_decoder:
            start = self._generation_config().start
            inputs = [[start, *target[:-1]] for target in labels]
            decoder = replace(labelled_examples(inputs, labels, cut), lost=lost)
            return replace(encoded, decoder=decoder)
        tokens = []
        of_tokens = []
        for row, (prompt, target) in enumerate(zip(encoded.context, labels, strict=True)):
            more = max(0, len(prompt.tokens) + len(target) - 1 - room)
            short = target[: len(target) - more] if more else target
            cut[row] += len(target) - len(short)
            each = prompt_and_target(prompt.tokens, short)
            tokens.append(each[0])
            of_tokens.append(each[1])
        examples = labelled_examples(tokens, of_tokens, cut + read.cut)
        if read.lost is not None:
            lost.add(read.lost)
        return replace(encoded, examples=replace(examples, lost=lost))

    def _target_ids(
        self, targets: Sequence[str], tokenizer: Tokenizer, room: int
    ) -> tuple[list[list[int]], NDArray[np.int32], Lost]:
        """Return the token ids of each target with its end token, how many tokens are truncated,
        and what the tokenizer does not know.
        """
        own = tokenizer.target
        end = end_token(own, self.ends)
        backend = own.backend
        special = not self.is_decoder
        found = backend.encode_batch(list(targets), add_special_tokens=special)
        ids = []
        cut = np.zeros(len(targets), np.int32)
        for row, encoding in enumerate(found):
            tokens = list(encoding.ids)
            if tokens and tokens[-1] == end:
                tokens.pop()
            cut[row] = max(0, len(tokens) - (room - 1))
            ids.append([*tokens[: room - 1], end])
        whole = examples_of(ids or [[]])
        return ids, cut, unknown_in(own, whole.tokens, whole.starts, int(cut.sum()), targets)

    def _note_cut_targets(self, encoded: Encoded, table: "Table", data: DataSettings) -> None:
        """Add a note on truncated targets; the note on sources is the same for all tasks."""
        if encoded.decoder is None:
            return
        cut = encoded.decoder.cut
        count = int((cut > 0).sum())
        if count:
            first = table.where(int(np.flatnonzero(cut)[0]))
            self._notes.append(
                f"{table.origin}: {count:,} of {len(table):,} targets are longer than"
                f" {data.max_length:,} tokens (data.max_length): {int(cut.sum()):,} tokens at their"
                f" ends are not learnt, first {first}"
            )

    # --- what people see ---

    def balance(self, golds: Any) -> dict[str, float]:
        lengths = [len(words(texts[0])) for texts in golds]
        return {"words, median": float(np.median(lengths)), "words, most": float(max(lengths))}

    def show_target(self, gold: tuple[str, ...]) -> str:
        text = gold[0] if len(gold[0]) <= 160 else gold[0][:159] + "…"
        return text + (f" (and {len(gold) - 1} more)" if len(gold) > 1 else "")

    # --- judging ---

    def evaluate(
        self, model: nn.Module, dev: Encoded, *, device: torch.device, dtype: torch.dtype
    ) -> tuple[Metrics, float | None]:
        """Return the loss on all of dev, and the metrics of texts generated for a part of it."""
        with evaluating(model):
            loss = self.mean_loss(model, dev, device, dtype)
            few = min(len(dev), self.settings.dev_examples)
            rows = np.linspace(0, len(dev) - 1, few).round().astype(np.int64)
            written = self.write(model, [dev.context[row] for row in rows], dtype, beams=1)
        return self.metrics([dev.golds[row] for row in rows], written), loss

    def metric_names(self) -> list[str]:
        return list(self.names)

    def default_best(self) -> str:
        return self.names[0] if self.settings.output == "translation" else self.names[-1]

    def measure(self, golds: Any, predictions: Any) -> Measure:
        written = [prediction.texts[0] for prediction in predictions]
        if self.settings.output == "translation":
            return translation.TranslationScores(written, golds).measure
        scores = rouge.scores(written, golds)  # (N, metrics)

        def measure(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
            means = scores.T @ weights / weights.sum(axis=0)  # (metrics, R)
            return dict(zip(rouge.METRICS, means, strict=True))

        return measure

    def judge(
        self, golds: Any, predictions: Any, main: str | None = None, *, seed: int = 0
    ) -> Judgement:
        found = super().judge(golds, predictions, main, seed=seed)
        written = [prediction.texts[0] for prediction in predictions]
        sources = [prediction.source for prediction in predictions]
        rows = [
            ["written", *_text_statistics(written, sources, golds)],
            ["reference", *_text_statistics([texts[0] for texts in golds], sources, golds)],
        ]
        table = judgement.Table(
            title="How the texts are",
            columns=("", "length ratio", "repeated", "copied from the source", "empty"),
            rows=rows,
            shares=(2, 3),
            note=(
                f"Length in words by that of the references; {GRAM} words in a row that the text"
                " itself, or the source, has before."
            ),
        )
        notes = list(found.notes)
        settled: dict[str, Any] = {"written": dict(zip(HABITS, rows[0][1:], strict=True))}
        if self.settings.output == "translation":
            signatures = translation.TranslationScores(written, golds).signatures
            settled["signatures"] = signatures
            notes += [f"{name}: {signature}" for name, signature in signatures.items()]
        return replace(found, sections=(table,), notes=notes, settled=settled)

    def mistakes(
        self, table: "Table", golds: Any, predictions: Any, limit: int = 20
    ) -> judgement.Examples | None:
        written = [prediction.texts[0] for prediction in predictions]
        alike = rouge.scores(written, golds)[:, -1]
        order = np.argsort(alike, kind="stable")
        worst = [int(row) for row in order if written[row] not in golds[row]][:limit]
        sources = table.select(worst).column("source") if worst else []
        rows = [
            judgement.Example(
                [judgement.Passage(source)], (golds[row][0], written[row], float(alike[row]))
            )
            for row, source in zip(worst, sources, strict=True)
        ]
        return judgement.Examples(
            title="Furthest from the reference",
            columns=("reference", "written", "ROUGE-L"),
            rows=rows,
            texts_are="source",
        )

    def baseline(
        self,
        train: tuple["Table", Any],
        test: tuple["Table", Any],
        *,
        metric: str,
        as_model: bool = True,
    ) -> Baseline | None:
        """Return the source itself or its first sentences, whichever scores best on training
        rows.
        """
        began = time.perf_counter()
        tried = train[0].select(np.arange(min(TRIED, len(train[0]))))
        golds = train[1][: len(tried)]
        best: tuple[float, int, str] | None = None
        makers = simple_systems()
        for number, (name, make) in enumerate(makers.items()):
            value = self.metrics(golds, _as_written(make, tried))[metric] or 0.0
            if best is None or value > best[0]:
                best = value, number, name
        assert best is not None
        predictions = _as_written(makers[best[2]], test[0])
        metrics = self.metrics(test[1], predictions)
        seconds = round(time.perf_counter() - began, 3)
        return Baseline(best[2], metrics, predictions, seconds)


HABITS = ("length_ratio", "repeated", "copied", "empty")


def _text_statistics(
    written: Sequence[str], sources: Sequence[str], golds: Sequence[Sequence[str]]
) -> list[float | int | None]:
    """Return statistics of texts: their length relative to the references, the fractions of their
    n-grams that they repeat and that they copy from the source, and how many are empty.
    """
    lengths = [len(words(text)) for text in written]
    true = sum(len(words(texts[0])) for texts in golds)
    grams = [_ngrams(text) for text in written]
    total = sum(map(len, grams))
    repeated = sum(len(each) - len(set(each)) for each in grams)
    copied = 0
    for own_grams, source in zip(grams, sources, strict=True):
        source_grams = set(_ngrams(source))
        copied += sum(gram in source_grams for gram in own_grams)
    return [
        sum(lengths) / true if true else None,
        repeated / total if total else None,
        copied / total if total else None,
        sum(not text for text in written),
    ]


def _ngrams(text: str) -> list[tuple[str, ...]]:
    own = words(text)
    return [tuple(own[begin : begin + GRAM]) for begin in range(len(own) - GRAM + 1)]


def simple_systems() -> dict[str, Callable[[str], str]]:
    """What needs no training, by name: a text for a source."""
    systems: dict[str, Callable[[str], str]] = {"the source itself": str}
    for count in LEADS:
        of = "sentence" if count == 1 else f"{count} sentences"
        systems[f"first {of} of the source"] = partial(_lead, count)
    return systems


def _lead(count: int, text: str) -> str:
    spans = sentences(text)[:count]
    return text[spans[0][0] : spans[-1][1]] if spans else text


def _as_written(make: Callable[[str], str], table: "Table") -> list[Written]:
    sources = table.column("source")
    return [Written([make(source)], [0.0], source) for source in sources]


def _without_end(tokens: list[int], tokenizer: Tokenizer, ends: frozenset[int]) -> list[int]:
    """Return a prompt without the end-of-text tokens that the tokenizer appended."""
    for token in reversed(frame_of(tokenizer.backend)[1]):
        if token not in ends or tokens[-1:] != [token] or len(tokens) == 1:
            break
        tokens = tokens[:-1]
    return tokens
