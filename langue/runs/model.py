"""What arrives: a Hub name, a folder or a run. What leaves: a model in use: hidden states,
embeddings, predictions."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from langue.data.batch import Batch, Examples, gather, gather_pairs
from langue.data.encoded import Encoded, in_order
from langue.data.pack import sorted_batches
from langue.errors import ModelError
from langue.files import atomic_folder
from langue.generation.sample import sampling_of
from langue.hub.checkpoint import (
    Checkpoint,
    classes_of,
    describe,
    load_into,
    read_checkpoint,
    without_extra,
    write_checkpoint,
)
from langue.hub.family import EXTRA_PREFIX, LM_CLASSES
from langue.hub.sentence_transformers import copy_modules
from langue.model.heads import TaskModel
from langue.model.language_model import LanguageModel, build_on_meta, on_meta_device
from langue.model.transformer import Transformer
from langue.runs.embed import SentenceEncoder
from langue.runs.generation import TextGenerator
from langue.runs.inputs import Inputs, Room, Texts, check_kind, is_empty, is_pair, listed
from langue.runs.save import head_of, task_of, write_task_checkpoint
from langue.runtime import device, precision
from langue.settings.sections import DataSettings
from langue.tasks.task import Task, infer
from langue.text.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from langue.text.read.source import Source, Table

LOGITS = 2048  # tokens of a batch whose logits are held whole
# how many labels of a text are shown: what the task gives, so many, or all
Top = int | Literal["auto"] | None


class Model:
    """A loaded model. Texts may be strings, (text, pair) tuples, or lists of token ids."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        body: Transformer,
        task: Task | None,
        network: TaskModel | None,
        dtype: torch.dtype,
        language: LanguageModel | None = None,
    ) -> None:
        self.config = checkpoint.config
        self.data = _data_settings(checkpoint)
        self.tokenizer = checkpoint.tokenizer.for_languages(
            self.data.source_language, self.data.target_language
        )
        self.checkpoint = replace(checkpoint, tokenizer=self.tokenizer)
        self.inputs = Inputs(self.checkpoint)
        self.body = body
        self.task = task
        self.network = network
        self.language = language
        self.device = next(body.parameters()).device
        self.dtype = dtype
        # what the task is of; None: not known
        self.pairs: bool | None = (checkpoint.task or {}).get("pairs")

    @cached_property
    def _sentence_encoder(self) -> SentenceEncoder:
        return SentenceEncoder(self.checkpoint, self.body, self.inputs)

    @cached_property
    def _text_generator(self) -> TextGenerator:
        return TextGenerator(self.checkpoint, self._language(), self.inputs)

    def hidden(self, texts: Texts) -> list[NDArray[np.float32]]:
        """The last hidden state of every token, special ones included: one (t, D) array a text.

        A text that is longer than the model's positions, or its tokenizer's model_max_length, is an
        error.
        """
        examples = self._examples(texts)
        out: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(examples)

        def states(batch: Batch) -> NDArray[np.float32]:
            found: NDArray[np.float32] = self.body(*batch.inputs).float().cpu().numpy()
            return found

        for batch, found in infer(states, examples, self.device, self.dtype):
            ends = np.cumsum(examples.lengths[batch.rows])
            for row, part in zip(batch.rows, np.split(found, ends[:-1]), strict=True):
                out[row] = part
        return out

    def encode(
        self,
        texts: Texts,
        pool: str | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
    ) -> NDArray[np.float32]:
        """One vector a text, (N, D).

        A folder of sentence-transformers is followed: its max_seq_length, pooling, Dense and
        Normalize modules, and its default prompt. Elsewhere the vector is the mean of the text's
        hidden states. A longer text is cut, with a LangueWarning that counts.

        pool: plain pooled hidden states instead: mean, first (cls), last (lasttoken), max,
        mean_sqrt_len or weightedmean. prompt: put before each string; prompt_name: the one that the
        model has under this name. Token ids are taken as they are.
        """
        return self._sentence_encoder.encode(texts, pool, prompt, prompt_name, self.dtype)

    def logits(
        self,
        texts: Texts,
        targets: Texts | None = None,
        *,
        source_language: str | None = None,
        target_language: str | None = None,
    ) -> Any:
        """What the head gives before softmax or sigmoid: (N, labels) of a task model, one (t, V)
        array a text of a language model, or of a task that scores tokens.

        An encoder-decoder takes sources and targets. A target's row i is the score of what follows
        its first i + 1 tokens; of strings, the start token is put before and the last token left
        off, so that row i scores token i. source_language, target_language: as in `generate`.
        """
        tokenizer = self.tokenizer.for_languages(source_language, target_language)
        if self.task is None:
            return self._language_logits(texts, targets, tokenizer)
        task, network = self._trained()
        with self.inputs.counting_truncation():
            examples = self._examples(texts, room=self._task_room(), tokenizer=tokenizer)
        parts = []
        for batch, outputs in infer(network, examples, self.device, self.dtype):
            found: Any = task.logits(outputs).float().cpu().numpy()
            if network.head.per_token:
                found = np.split(found, batch.starts[1:-1].tolist())
            parts.append((batch.rows, found))
        if not parts and not network.head.per_token:
            return np.zeros((0, network.head.out.out_features), np.float32)
        return in_order(len(examples), parts)

    def generate(
        self,
        prompts: Texts,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        *,
        source_language: str | None = None,
        target_language: str | None = None,
    ) -> list[Any]:
        """What the model writes after each prompt (an encoder-decoder: for each source), up to its
        end token.

        Strings give strings, lists of token ids lists of token ids; conversations, lists of
        `{"role", "content"}`, give what is answered, where the model has a chat template. What is
        not given is as the model's generation_config.json says, as in `transformers`; where it says
        nothing: 64 new tokens, the likeliest each time (temperature 0), with top_k 0 (all) and
        top_p 1. A LangueWarning names what it says and is not implemented. A prompt that is longer
        than the model's positions is an error. source_language, target_language: of a translation
        model of many languages, by its own codes; None: as the run's settings say, or the model's
        files.
        """
        self._language()
        if self.config.architecture == "encoder":
            raise ModelError(
                "an encoder sees both ways and does not generate", where=str(self.checkpoint.folder)
            )
        items = listed(prompts, "prompts")
        generator = self._text_generator
        sampling = sampling_of(generator.generation, max_tokens, temperature, top_k, top_p, seed)
        if not items:
            return []
        tokenizer = self.tokenizer.for_languages(source_language, target_language)
        with self._autocast():
            return generator.generate(
                items, sampling, tokenizer, target_language or self.data.target_language
            )

    def _language_logits(
        self, texts: Texts, targets: Texts | None, tokenizer: Tokenizer
    ) -> list[NDArray[np.float32]]:
        language = self._language()
        if (targets is not None) != (self.config.architecture == "encoder-decoder"):
            raise ModelError(
                (
                    f"the model is an {self.config.architecture}"
                    if targets is not None
                    else "targets are missing"
                ),
                do="an encoder-decoder takes logits(sources, targets), others logits(texts)",
            )
        examples = self._examples(texts, tokenizer=tokenizer)
        out: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(examples)
        read = examples if targets is None else self._shifted(targets, tokenizer)
        if len(read) != len(examples):
            raise ModelError(
                f"{len(examples)} sources and {len(read)} targets", do="give one target a source"
            )
        longer = np.maximum(examples.lengths, read.lengths)
        with torch.no_grad():
            for rows in sorted_batches(longer, max(LOGITS, int(longer.max(initial=1)))):
                with self._autocast():
                    if targets is None:
                        batch = gather(read, rows, self.device)
                        hidden = self.body(*batch.inputs)
                    else:
                        pairs = gather_pairs(examples, read, rows, self.device)
                        batch = pairs.target
                        encoder_states = self.body(*pairs.source.inputs)[pairs.order]
                        hidden = self.body.decode(*batch.inputs[:3], encoder_states, pairs.groups)
                    scores = language.logits(hidden).float().cpu().numpy()
                for row, part in zip(
                    batch.rows, np.split(scores, batch.starts[1:-1].tolist()), strict=True
                ):
                    out[row] = part
        return out

    def _shifted(self, targets: Texts, tokenizer: Tokenizer) -> Examples:
        """Targets as the decoder reads them."""
        examples = self._examples(targets, target=True, tokenizer=tokenizer)
        if len(targets) and isinstance(targets[0], str):
            tokens = np.roll(examples.tokens, 1)
            start = (
                self.checkpoint.start
                if tokenizer.decoder_start is None
                else tokenizer.decoder_start
            )
            tokens[examples.starts[:-1]] = start
            return replace(examples, tokens=tokens)
        return examples

    def _language(self) -> LanguageModel:
        if self.language is None:
            raise ModelError(
                "the model has no language-model head, so it scores and writes no tokens",
                where=str(self.checkpoint.folder),
                do=(
                    "load a model saved with its head (ForCausalLM, ForMaskedLM,"
                    " ForConditionalGeneration)"
                ),
            )
        return self.language

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def predict(self, texts: Texts, top: Top = "auto") -> list[Any]:
        """What the task promises of each text, shaped as `transformers` pipelines do.

        top="auto": one `{"label", "score"}` a text, or, of a task with several labels a text, a
        list of those at or over its threshold, which may be empty. top=1: the best label alone;
        other numbers: a list of the best so many; None: a list of all labels. A text in which there
        is nothing (None, blank, without tokens) has None.
        """
        task, _ = self._trained()
        if top not in ("auto", None) and (not isinstance(top, int) or top < 1):
            do = 'give 1 or more, None for all, or "auto" for what the task gives'
            raise ModelError(f"top = {top!r} labels cannot be shown", do=do)
        items = listed(texts)
        answers: list[Any] = [None] * len(items)
        with self.inputs.counting_truncation():
            rows, encoded = self._answerable(items)
        for row, prediction in zip(rows, self.apply(encoded), strict=True):
            if top == "auto":
                answers[row] = task.answer(prediction)
            else:
                shown = task.show(prediction, top)
                answers[row] = shown[0] if top == 1 else shown
        return answers

    def _answerable(self, items: list[Any]) -> tuple[list[int], Encoded]:
        """Which of these texts, pairs or lists of token ids have something in them, and these
        encoded."""
        rows = [row for row, item in enumerate(items) if not is_empty(item, self.reads_words)]
        filled = [items[row] for row in rows]
        if self._trained()[0].takes_texts:
            check_kind(filled)
            if filled and (isinstance(filled[0], str) or is_pair(filled[0])):
                self.check_pairs(is_pair(filled[0]))
        encoded = self._encode_items(filled)
        usable = encoded.rows_with_tokens()
        if not usable.all():
            rows = [row for row, fits in zip(rows, usable, strict=True) if fits]
            encoded = self._encode_items([items[row] for row in rows])
        return rows, encoded

    def _encode_items(self, items: list[Any]) -> Encoded:
        task, _ = self._trained()
        as_texts = partial(self._examples, room=self._task_room())
        encoded = task.encode_items(items, self.tokenizer, self.data, self.config, as_texts)
        if not task.takes_texts and encoded.examples.lost is not None:
            self.inputs.count_unknown(encoded.examples.lost)
        return encoded

    def read_inputs(self, data: Any, columns: Mapping[str, str] | None = None) -> "Source":
        """Rows to predict from: the columns that the task reads, without the target."""
        from langue.text.read.source import read

        named = self._trained()[0].columns
        need = (*named.inputs, *(named.optional if self.pairs else ()))
        return read(
            data,
            columns=columns,
            need=need,
            optional=() if self.pairs is False else named.optional,
            split=False,
            invalid="keep",
            synonyms=named.synonyms,
        )

    def items(self, table: "Table") -> list[Any]:
        """A table's rows as `predict` takes them."""
        return self._trained()[0].items(table)

    @property
    def reads_words(self) -> bool:
        """Whether a list that is given to predict from is a list of words."""
        return "tokens" in self._trained()[0].columns.inputs

    def _task_room(self) -> Room:
        """Where the task's texts are cut."""
        most = min(self.data.max_length, self.config.max_length)
        source = (
            "data.max_length of the run"
            if self.checkpoint.task is not None
            else self.inputs.room.source
        )
        return Room(most, source, self.data.truncation)

    def check_pairs(self, pairs: bool, where: str = "") -> None:
        """ModelError where pairs of texts are given to a run of single ones, or the other way
        round."""
        if self.pairs is not None and self.pairs != pairs:
            kinds = ("pairs of texts", "single texts")
            trained, given = kinds if self.pairs else kinds[::-1]
            what = f"the run was trained on {trained}, and these are {given}"
            raise ModelError(what, where=where, do="give what it was trained on")

    def apply(self, encoded: Encoded, progress: Any = None) -> Any:
        """Predictions of encoded rows, one a row, in their order."""
        task, network = self._trained()
        predictions, _ = task.apply(
            network, encoded, device=self.device, dtype=self.dtype, progress=progress
        )
        return predictions

    def save(self, folder: str | Path) -> None:
        """Write a folder that `load`, and `transformers` where it has the architecture, read."""
        path = Path(folder)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ModelError(
                "the folder exists and is not empty, or is a file",
                where=str(path),
                do="choose another",
            )
        with atomic_folder(path) as temporary:
            if self.task is not None and self.network is not None:
                trained = dict(self.network.named_parameters())
                write_task_checkpoint(
                    temporary, self.checkpoint, self.task, trained, self.data, self.pairs
                )
            else:
                whole = self.language
                weights: dict[str, torch.Tensor] = {
                    f"body.{n}": w for n, w in self.body.named_parameters()
                }
                if whole is not None:
                    weights |= dict(whole.named_parameters())
                weights |= {
                    n: w for n, w in self.checkpoint.weights.items() if n.startswith(EXTRA_PREFIX)
                }
                write_checkpoint(
                    temporary,
                    family=self.checkpoint.family,
                    config=self.config,
                    weights=weights,
                    tokenizer=self.tokenizer,
                    head=None if whole is None else "lm",
                    published=self.checkpoint.published,
                    writes=self.checkpoint.writes,
                )
                copy_modules(self.checkpoint.folder, temporary)

    def _trained(self) -> tuple[Task, TaskModel]:
        if self.task is None or self.network is None:
            raise ModelError(
                "the model has no task head, so it has no predictions",
                where=str(self.checkpoint.folder),
                do=("fine-tune it first: langue finetune --model ... --data ... --out RUN"),
            )
        return self.task, self.network

    def _examples(self, texts: Any, **options: Any) -> Examples:
        """As `Inputs.examples`."""
        return self.inputs.examples(texts, **options)


def _data_settings(checkpoint: Checkpoint) -> DataSettings:
    """How the task's texts are cut: as the run says, or as `transformers` cuts what it
    published."""
    if checkpoint.task is not None:
        return DataSettings.of_run(checkpoint.task.get("data", {}))
    inputs = Inputs(checkpoint)
    return DataSettings(max_length=max(4, inputs.room.tokens), truncation=inputs.cut_side)


def load(name: str | Path, revision: str | None = None, dtype: str = "fp32") -> Model:
    """Load a model for use. `dtype`: fp32, bf16, or auto (bf16 where the hardware has it): what its
    matrices are held and multiplied in."""
    described = describe(name, revision)
    kind = precision(dtype)
    task = task_of(described)
    head = "lm" if task is None else head_of(task, described)
    checkpoint = read_checkpoint(described, head, weights_dtype=kind)
    weights = without_extra(checkpoint.weights)
    where = str(checkpoint.folder)
    network = language = None
    if task is None:
        body, language = _language_model(checkpoint, weights, kind)
    else:
        with on_meta_device():
            network = task.network(checkpoint.config, pad=checkpoint.pad)
        load_into(network, weights, where=where, copy=False, weights_dtype=kind)
        body = network.body
    # a body without its head never moves the head's meta tensors
    (network or language or body).to(device()).eval()
    if kind != torch.float32:  # what the file has in another precision is not held beside
        prefix = "" if network or language else "body."
        whole = {prefix + name: w for name, w in (network or language or body).named_parameters()}
        held = {name: whole.get(name, tensor) for name, tensor in checkpoint.weights.items()}
        checkpoint = replace(checkpoint, weights=held)
    return Model(checkpoint, body, task, network, kind, language)


def _language_model(
    checkpoint: Checkpoint, weights: dict[str, torch.Tensor], kind: torch.dtype
) -> tuple[Transformer, LanguageModel | None]:
    """The body, and the whole with its language-model head where the folder has one."""
    where = str(checkpoint.folder)
    whole = build_on_meta(checkpoint.config)
    family = checkpoint.family
    classes = classes_of(checkpoint.published)
    absent = load_into(whole, weights, where=where, new="head.", copy=False, weights_dtype=kind)
    promised = any(name.endswith(LM_CLASSES) for name in classes)
    if absent and (promised or len(absent) < len(list(whole.head.parameters()))):
        raise ModelError(
            f"weights of the language-model head missing: {', '.join(absent[:3])}", where=where
        )
    speaks = len(list(whole.head.parameters())) or family.has_lm_head(checkpoint.config, classes)
    return whole.body, whole if speaks and not absent and not family.other(classes) else None
