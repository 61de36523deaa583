"""The model in use: loads a Hub name, a folder or a run; computes hidden states, embeddings,
predictions and text.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from langue.data.batch import Batch, Examples
from langue.data.encoded import Encoded, in_order
from langue.errors import ModelError
from langue.files import atomic_folder
from langue.generation.engine import GUESSES, MOST_ROWS
from langue.hub.checkpoint import (
    Checkpoint,
    Description,
    classes_of,
    describe,
    family_of,
    is_quantized,
)
from langue.hub.family import LM_CLASSES
from langue.hub.sentence_transformers import copy_modules
from langue.model.heads import TaskModel
from langue.model.language_model import LanguageModel, on_meta_device
from langue.model.weight_kinds import check_weight_kind
from langue.model.weight_linear import device_of, tensors_and_weights
from langue.runs.embed import SentenceEncoder
from langue.runs.generation import (
    LOOK_UP,
    Options,
    TextEngine,
    TextGenerator,
    detailed,
    options_of,
)
from langue.runs.inputs import (
    Inputs,
    Room,
    Texts,
    check_kind,
    is_conversation,
    is_empty,
    is_pair,
    listed,
)
from langue.runs.logits import LanguageLogits
from langue.runs.parts import Parts, read_parts
from langue.runs.save import refuse_filled, write_published, write_task_checkpoint
from langue.runs.weight_source import WeightSource, source_of
from langue.runtime import precision
from langue.settings.sections import DataSettings
from langue.tasks import TASKS
from langue.tasks.task import Task, infer
from langue.text.read.table import ALL, KEPT

if TYPE_CHECKING:
    from langue.runs.likelihood import Likelihoods
    from langue.runs.prompted import Normalize
    from langue.text.read.source import Source, Table

PAIR = "pair"  # column of the second text
DEFAULT = "default"  # name of the adapter of a folder that is loaded as an adapter
# number of labels to show: "auto" for what the task predicts; None: all
Top = int | Literal["auto"] | None


class Model:
    """A loaded model. Texts may be strings, (text, pair) tuples, or lists of token ids."""

    def __init__(self, parts: Parts, dtype: torch.dtype, weights: str | None = None) -> None:
        """dtype: of the matrix products. weights: the format of its matrices, if `load` was given
        one.
        """
        self.config = parts.checkpoint.config
        self.device = device_of(parts.body)
        self.dtype = dtype
        self.weights = weights
        # the model with each of its adapters, and (None) without one
        self._parts: dict[str | None, Parts] = {None: parts}
        self.adapter: str | None = None  # name of the active adapter
        self._switch_to(self._parts[None])

    def __repr__(self) -> str:
        from langue.runs.show import model_facts

        facts = model_facts(self)
        return f"Model({facts.pop('name')!r}: {'; '.join(facts.values())})"

    def _repr_html_(self) -> str:
        from langue.runs.notebook import as_html
        from langue.runs.show import model_facts, print_pairs

        return as_html(lambda console: print_pairs(model_facts(self), console))

    def _switch_to(self, parts: Parts) -> None:
        """Switch to these parts."""
        for name in ("_sentence_encoder", "_text_generator"):
            self.__dict__.pop(name, None)
        checkpoint = parts.checkpoint
        self.data = _data_settings(checkpoint)
        self.tokenizer = checkpoint.tokenizer.for_languages(
            self.data.source_language, self.data.target_language
        )
        self.checkpoint = replace(checkpoint, tokenizer=self.tokenizer)
        self.inputs = Inputs(self.checkpoint)
        self.body = parts.body
        self.task = parts.task
        if self.task is not None:
            self.task.use(self.checkpoint)
        self.network = parts.network
        self.language = parts.language
        self.is_published = False  # whether the task comes from a published folder
        # whether the task reads pairs; None: unknown
        self.pairs: bool | None = (checkpoint.task or {}).get("pairs")

    def add_adapter(self, folder: str | Path, name: str) -> None:
        """Load an adapter, trained by `langue finetune` or PEFT, for use by `use_adapter`.

        The adapter shares the model's weights. Raises ModelError if its base is another model.
        """
        from langue.runs.adapters import parts_with_adapter

        if name in self._parts:
            raise ModelError(f"there is an adapter {name!r} already", do="give it another name")
        self._parts[name] = parts_with_adapter(self._parts[None], folder)

    def beside(self, folder: str | Path) -> "Model":
        """Return another model with an adapter on this model's weights; both can be used at the
        same time.

        Raises ModelError if the base of the adapter is another model.
        """
        from langue.runs.adapters import parts_with_adapter

        return Model(parts_with_adapter(self._parts[None], folder), self.dtype, self.weights)

    def use_adapter(self, name: str | None) -> None:
        """Activate an adapter with its head and task; None: the base model."""
        if name not in self._parts:
            known = ", ".join(repr(each) for each in self._parts if each is not None)
            raise ModelError(
                f"there is no adapter {name!r}",
                do=f"known: {known or 'none'}; add_adapter(folder, name) loads one",
            )
        self.adapter = name
        self._switch_to(self._parts[name])

    @property
    def adapters(self) -> list[str]:
        """The names of the loaded adapters."""
        return [name for name in self._parts if name is not None]

    @cached_property
    def _sentence_encoder(self) -> SentenceEncoder:
        return SentenceEncoder(self.checkpoint, self.body, self.inputs)

    @cached_property
    def _text_generator(self) -> TextGenerator:
        return TextGenerator(self.checkpoint, self._language(), self.inputs, self.dtype)

    @cached_property
    def likelihoods(self) -> "Likelihoods":
        """The scorer of log-likelihoods of texts after others."""
        from langue.runs.likelihood import Likelihoods

        return Likelihoods(self.checkpoint, self._language(), self.inputs, self.dtype)

    def hidden(self, texts: Texts) -> list[NDArray[np.float32]]:
        """Return the last hidden states of all tokens, including special ones: one (t, D) array for
        each text.

        A text that exceeds the model's positions, or its tokenizer's model_max_length, is an error.
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
        dim: int | None = None,
    ) -> NDArray[np.float32]:
        """Return one vector for each text, (N, D).

        A sentence-transformers folder is followed: its max_seq_length, pooling, Dense and Normalize
        modules, and its default prompt. For other models, the vector is the mean of the text's
        hidden states. Longer texts are truncated, with a LangueWarning that counts them.

        pool: plain pooling of the hidden states instead: mean, first (cls), last (lasttoken), max,
        mean_sqrt_len or weightedmean. prompt: put before each string. prompt_name: the model's
        prompt of this name. Token ids are taken as they are. dim: only the first elements of the
        vectors, for models trained with task.matryoshka; normalized if the whole vectors are.
        """
        encoder = self._sentence_encoder
        return encoder.encode(texts, pool, prompt, prompt_name, self.dtype, dim)

    def encode_query(self, texts: Texts, dim: int | None = None) -> NDArray[np.float32]:
        """Return vectors as `encode` does, with the model's query prompt if it has one."""
        return self.encode(texts, prompt_name=self._prompt_name("query"), dim=dim)

    def encode_document(self, texts: Texts, dim: int | None = None) -> NDArray[np.float32]:
        """Return vectors as `encode` does, with the model's document prompt if it has one."""
        return self.encode(texts, prompt_name=self._prompt_name("document"), dim=dim)

    def _prompt_name(self, name: str) -> str | None:
        return name if self._sentence_encoder.has_prompt(name) else None

    def logits(
        self,
        texts: Texts,
        targets: Texts | None = None,
        *,
        source_language: str | None = None,
        target_language: str | None = None,
    ) -> Any:
        """Return the head's outputs before softmax or sigmoid: (N, labels) for a task model; one
        (t, V) array for each text for a language model or a token-level task.

        An encoder-decoder takes sources and targets. Row i of a target holds the logits for the
        token after its first i + 1 tokens. For strings, the start token is prepended and the last
        token dropped, so that row i scores token i. source_language, target_language: as in
        `generate`.
        """
        tokenizer = self.tokenizer.for_languages(source_language, target_language)
        if self.task is None or self.task.has_language_head:
            scorer = LanguageLogits(self.checkpoint, self._language(), self.inputs, self.dtype)
            return scorer.of(texts, targets, tokenizer)
        task, network = self._trained()
        assert isinstance(network, TaskModel)
        with self.inputs.counting_truncation():
            examples = self._examples(texts, room=self._task_room(), tokenizer=tokenizer)
        parts = []
        for batch, outputs in infer(network, examples, self.device, self.dtype):
            found: Any = task.logits(outputs).float().cpu().numpy()
            if network.head.per_token:
                found = np.split(found, batch.starts[1:-1].tolist())
            parts.append((batch.rows, found))
        if not parts and not network.head.per_token:
            return np.zeros((0, network.head.size), np.float32)
        return in_order(len(examples), parts)

    def generate(
        self,
        prompts: Texts,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int | Sequence[int] = 0,
        n: int = 1,
        beams: int | None = None,
        length_penalty: float | None = None,
        repetition_penalty: float | None = None,
        presence_penalty: float | None = None,
        frequency_penalty: float | None = None,
        no_repeat_ngram: int | None = None,
        min_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        logit_bias: Mapping[int, float] | None = None,
        logprobs: int | None = None,
        json_schema: Mapping[str, Any] | str | None = None,
        regex: str | None = None,
        choices: Sequence[str] | None = None,
        details: bool = False,
        **options: Any,
    ) -> list[Any]:
        """Generate a continuation of each prompt (for an encoder-decoder: of each source), up to
        the end token.

        Strings give strings, and lists of token ids give lists of token ids. Conversations, lists
        of `{"role", "content"}`, give the assistant's answer, if the model has a chat template.
        Options that are not given are those of the model's generation_config.json, as in
        `transformers`; without one: 64 new tokens, greedy (temperature 0), top_k 0 (all) and top_p
        1. A LangueWarning names its settings that are not implemented. A prompt that exceeds the
        model's positions is an error.

        The result for a prompt does not depend on the others. seed: for all prompts, or one for
        each. n: number of answers to each prompt, as a list. beams: beam search, which returns the
        n best. stop: strings that end a text, and are not included. logit_bias: token id -> value
        added to its logit. logprobs: 0, or the number of most probable tokens to report in addition
        to the chosen one. json_schema, regex, choices, and grammar (Lark): constrain the text.
        details: each answer is `{"text", "tokens", "logprobs", "finish_reason"}`.

        options: typical_p, early_stopping, grammar, prompt_logprobs, draft ("prompt", or a smaller
        model, which proposes draft_tokens per step for the model to verify), and source_language
        and target_language, in the model's own codes, of a multilingual translation model; None: as
        in the run's settings, or the model's files.
        """
        given = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
            "seed": seed,
            "n": n,
            "beams": beams,
            "length_penalty": length_penalty,
            "repetition_penalty": repetition_penalty,
            "presence_penalty": presence_penalty,
            "frequency_penalty": frequency_penalty,
            "no_repeat_ngram": no_repeat_ngram,
            "min_tokens": min_tokens,
            "stop": stop,
            "logit_bias": logit_bias or {},
            "logprobs": logprobs,
            "json_schema": json_schema,
            "regex": regex,
            "choices": choices,
        }
        generator = self._writer()
        items = listed(prompts, "prompts", conversations=True)
        asked = _with_draft(options_of({**given, **options}))
        if not items:
            return []
        answers = generator.generate(items, asked)
        as_text = isinstance(items[0], str) or is_pair(items[0]) or is_conversation(items[0])
        made: list[Any] = []
        for each in answers:
            shown: list[Any]
            if details:
                shown = [detailed(answer) for answer in each]
            else:
                shown = [answer.text if as_text else answer.tokens for answer in each]
            made.append(shown if n > 1 else shown[0])
        return made

    def rank(
        self,
        prompt: str | Sequence[str],
        choices: Sequence[str] | Sequence[Sequence[str]],
        *,
        normalize: "Normalize" = "none",
        neutral: str | Sequence[str] | None = None,
        delimiter: str | None = None,
    ) -> list[Any]:
        """Rank choices by their likelihood after the prompt: `{"choice", "score", "logprob",
        "tokens"}`, best first; the scores sum to 1.

        Several prompts give a list each. choices: one list for all prompts, or one for each.
        normalize: divide the log-likelihood by the number of tokens, characters or bytes, so that
        short choices have no advantage. neutral: one or several content-free prompts to calibrate
        scores with, so that frequent choices have no advantage. delimiter: between prompt and
        choice if there is no blank; None: a blank for decoders.
        """
        from langue.runs.prompted import rank

        return rank(self.likelihoods, prompt, choices, normalize, neutral, delimiter)

    def zero_shot(
        self,
        texts: Sequence[str],
        labels: str | Sequence[str],
        *,
        template: str = "This example is {}.",
        examples: Sequence[tuple[str, str]] = (),
        multi_label: bool = False,
        normalize: "Normalize" = "none",
        calibrate: bool = False,
    ) -> list[dict[str, Any]]:
        """Label texts without training: `{"sequence", "labels", "scores"}` for each text, best
        first, as the `transformers` pipeline returns them.

        Uses a classifier trained on entailment, or else a language model. The latter continues the
        text, a newline and the template, or a template that contains {text}; for it there are also
        examples: (text, label) pairs shown before; normalize: as in `rank`; calibrate: with
        content-free texts. multi_label: score each label on its own.
        """
        from langue.runs.prompted import zero_shot

        given = (template, examples, multi_label, normalize, calibrate)
        return zero_shot(self, texts, labels, *given)

    def extract(
        self,
        questions: str | Sequence[str],
        contexts: str | Sequence[str],
        *,
        template: str = "{context}\n\nQuestion: {question}\nAnswer:",
        examples: Sequence[tuple[str, str, str]] = (),
        no_answer: str | None = None,
        top: int = 1,
        max_tokens: int = 64,
    ) -> list[list[dict[str, Any]]]:
        """Extract answers to questions from contexts with a language model, without training: for
        each question at most `top` answers, `{"score", "start", "end", "answer"}`, best first. A
        score is the probability that the model generates exactly this answer.

        The model generates after the template, constrained to whole words of the context on one
        line; beam search finds the most probable answers. contexts: one for each question, or one
        for all. examples: (question, context, answer) triples shown before. no_answer: what the
        model writes if the context does not contain an answer, such as "unanswerable"; the answer
        is then "", and so it is in examples without one. None: every question gets an answer.
        """
        from langue.runs.prompted_answers import extract

        return extract(
            self,
            questions,
            contexts,
            template=template,
            examples=examples,
            no_answer=no_answer,
            top=top,
            max_tokens=max_tokens,
        )

    def fill_mask(
        self, texts: Texts, top: int = 5, targets: str | Sequence[str] | None = None
    ) -> list[Any]:
        """Return the most probable tokens for each mask, as the `transformers` pipeline does:
        `{"score", "token", "token_str", "sequence"}`.

        A text with several masks has a list for each, predicted with the other masks left masked.
        targets: restrict the candidates to these tokens.
        """
        from langue.runs.fill_mask import MaskFiller

        filler = MaskFiller(self.checkpoint, self._language(), self.inputs)
        return filler.fill(texts, top, targets, self.dtype)

    def stream(self, prompt: Any, **options: Any) -> Iterator[str]:
        """Yield the text generated after one prompt, piece by piece.

        The options are those of `generate`, except for n and beams. The joined pieces are the text.
        """
        for delta in self._writer().stream(prompt, _with_draft(options_of(options))):
            if delta.text:
                yield delta.text

    def engine(
        self,
        memory: int | None = None,
        rows: int = MOST_ROWS,
        draft: Any = None,
        draft_tokens: int = GUESSES,
        tokens: int | None = None,
    ) -> TextEngine:
        """Return an engine for programs that submit prompts at any time, and collect results step
        by step.

        memory: budget of the KV cache in bytes, never exceeded; None: half of the free memory.
        rows: maximum number of sequences in decoding. tokens: maximum number of tokens of all of
        them together. draft, draft_tokens: as in `generate`.
        """
        drafting = _with_draft(options_of({"draft": draft, "draft_tokens": draft_tokens}))
        guessed = {"draft": drafting.draft, "draft_tokens": draft_tokens}
        return self._writer().engine(memory, rows, tokens, **guessed)

    def _writer(self) -> TextGenerator:
        self._language()
        if self.config.architecture == "encoder":
            raise ModelError(
                "an encoder sees both ways and does not generate", where=str(self.checkpoint.folder)
            )
        return self._text_generator

    @property
    def lost_head(self) -> str | None:
        """The model class with token logits that the folder names, if the folder lacks the weights
        of that head.
        """
        classes = classes_of(self.checkpoint.published)
        promised = next((name for name in classes if name.endswith(LM_CLASSES)), None)
        return promised if self.language is None and self.task is None else None

    def _language(self) -> LanguageModel:
        if self.language is None:
            lacks = "the model has no language-model head"
            if self.lost_head is not None:
                lacks = f"weights of the language-model head missing, which {self.lost_head} has"
            raise ModelError(
                f"{lacks}, so it scores and writes no tokens",
                where=str(self.checkpoint.folder),
                do=(
                    "load a model saved with its head (ForCausalLM, ForMaskedLM,"
                    " ForConditionalGeneration)"
                ),
            )
        return self.language

    def predict(self, texts: Texts, top: Top = "auto") -> list[Any]:
        """Return the task's predictions for each text, in the form of the `transformers` pipelines.

        top="auto": one `{"label", "score"}` for each text, or, for multi-label tasks, a list of
        those at or above the threshold, which may be empty. top=1: only the best label; other
        numbers: a list of the best ones; None: a list of all labels. An empty text (None, blank, or
        without tokens) gets None.
        """
        task, _ = self._trained()
        if top not in ("auto", None) and (not isinstance(top, int) or top < 1):
            do = 'give 1 or more, None for all, or "auto" for what the task gives'
            raise ModelError(f"top = {top!r} labels cannot be shown", do=do)
        items = listed(texts, conversations=not task.takes_texts)
        answers: list[Any] = [None] * len(items)
        with self.inputs.counting_truncation():
            rows, encoded = self.answerable(items)
        for row, prediction in zip(rows, self.apply(encoded), strict=True):
            if top == "auto":
                answers[row] = task.answer(prediction)
            else:
                shown = task.show(prediction, top)
                answers[row] = shown[0] if top == 1 else shown
        return answers

    def answerable(self, items: list[Any]) -> tuple[list[int], Encoded]:
        """Return the indices of non-empty items, and these items encoded."""
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

    def read_inputs(
        self, data: Any, columns: Mapping[str, str] | None = None, keep: Sequence[str] = ()
    ) -> "Source":
        """Read rows to predict from: the task's columns without the target.

        keep: other columns to read, each under its name after KEPT; "all": all of them.
        """
        from langue.text.read.source import read

        named = self._trained()[0].columns
        optional = self.optional_columns()
        need = (*named.inputs, *(name for name in optional if name == PAIR and self.pairs))
        kept = {f"{KEPT}{name}": name for name in keep if name != ALL}
        every = [f"{KEPT}{ALL}"] if ALL in keep else []
        return read(
            data,
            columns={**(columns or {}), **kept} or None,
            need=need,
            optional=(*optional, *kept, *every),
            split=False,
            invalid="keep",
            synonyms=named.synonyms,
            encoding=self.data.encoding,
        )

    def optional_columns(self) -> tuple[str, ...]:
        """Return the optional columns that rows may have: the pair only if the run may read
        pairs.
        """
        optional = self._trained()[0].columns.optional
        return tuple(name for name in optional if name != PAIR or self.pairs is not False)

    def items(self, table: "Table") -> list[Any]:
        """Return a table's rows in the form that `predict` takes."""
        return self._trained()[0].items(table)

    @property
    def reads_words(self) -> bool:
        """Whether a list in the input is a list of words."""
        return "tokens" in self._trained()[0].columns.inputs

    def _task_room(self) -> Room:
        """Return the length at which the task's texts are truncated."""
        most = min(self.data.max_length, self.config.max_length)
        source = (
            "data.max_length of the run"
            if self.checkpoint.task is not None
            else self.inputs.room.source
        )
        return Room(most, source, self.data.truncation)

    def check_pairs(self, pairs: bool, where: str = "") -> None:
        """Raise ModelError if a model of pairs gets single texts, or the other way round."""
        if self.pairs is not None and self.pairs != pairs:
            kinds = ("pairs of texts", "single texts")
            trained, given = kinds if self.pairs else kinds[::-1]
            what = f"the run was trained on {trained}, and these are {given}"
            raise ModelError(what, where=where, do="give what it was trained on")

    def apply(self, encoded: Encoded, progress: Any = None) -> Any:
        """Return the predictions of encoded rows, in their order."""
        task, network = self._trained()
        predictions, _ = task.apply(
            network, encoded, device=self.device, dtype=self.dtype, progress=progress
        )
        return predictions

    def save(self, folder: str | Path) -> None:
        """Write a folder that `load` can read, and `transformers` if it has the architecture.

        Matrices in int8 or int4 are written in the layout of `compressed-tensors`. With an active
        adapter, only the adapter is written; `langue convert --merge` writes the merged model.
        """
        path = Path(folder)
        refuse_filled(path)
        with atomic_folder(path) as temporary:
            if self.adapter is not None:
                from langue.runs.adapters import copy_adapter

                copy_adapter(self.checkpoint, temporary)
            elif self.task is not None and self.network is not None and not self.is_published:
                tensors, stored = tensors_and_weights(self.network)
                write_task_checkpoint(
                    temporary, self.checkpoint, self.task, tensors, self.data, self.pairs, stored
                )
            else:
                write_published(temporary, self.checkpoint, self.body, self.language)
                copy_modules(self.checkpoint.folder, temporary)

    def has_task(self) -> bool:
        """Return whether the model has a task: its run's, or one recognised from its published
        folder.
        """
        if self.task is None:
            every = (
                kind.from_folder(self.checkpoint.folder, self.config) for kind in TASKS.values()
            )
            self.task = next((task for task in every if task is not None), None)
            if self.task is not None:
                with on_meta_device():
                    network = self.task.network(self.config)
                network.body = self.body
                self.network = network
                self.is_published = True
        return self.task is not None

    def _trained(self) -> tuple[Task, nn.Module]:
        self.has_task()
        if self.task is None or self.network is None:
            raise ModelError(
                "the model has no task head, so it has no predictions",
                where=str(self.checkpoint.folder),
                do=("fine-tune it first: langue finetune --model ... --data ... --out RUN"),
            )
        return self.task, self.network

    def _examples(self, texts: Any, **options: Any) -> Examples:
        """Encode texts, as `Inputs.examples` does."""
        return self.inputs.examples(texts, **options)


def _with_draft(options: Options) -> Options:
    """Load the draft model if it is given by name."""
    draft = options.draft
    if draft is None or draft == LOOK_UP or isinstance(draft, Model):
        return options
    return replace(options, draft=load(draft))


def _data_settings(checkpoint: Checkpoint) -> DataSettings:
    """Return the truncation of the task's texts: as in the run, or as `transformers` truncates for
    a published model.
    """
    if checkpoint.task is not None:
        return DataSettings.of_run(checkpoint.task.get("data", {}))
    inputs = Inputs(checkpoint)
    return DataSettings(max_length=max(4, inputs.room.tokens), truncation=inputs.cut_side)


def load(
    name: str | Path, revision: str | None = None, dtype: str = "fp32", weights: str | None = None
) -> Model:
    """Load a model for use.

    dtype: fp32, bf16, or auto (bf16 if the hardware supports it): the format of its matrices and of
    matrix products. weights: fp32, bf16, int8 or int4: the format of its matrices only, with
    products in fp32; int8 and int4 have a scale for each group of 32 numbers (an int4 model has its
    token embedding in int8). What cannot be grouped is held in bf16, with a LangueWarning.
    "stored": the format of the file, which is a GGUF file's Q8_0, Q4_0, Q4_K or Q6_K, a folder of
    `langue compress quantize` (which is held like that anyway, unless dtype or weights say
    otherwise), or the precision of each matrix. For an adapter it is the format of the base's
    matrices, by default as in training; the adapter is active, under the name "default".
    """
    source = source_of(name, revision, dtype, weights)
    model = load_base(source)
    if source.adapter is not None:
        model.add_adapter(source.adapter, DEFAULT)
        model.use_adapter(DEFAULT)
    return model


def load_base(source: WeightSource) -> Model:
    """Load a described model, without its adapter if it is one."""
    of_adapter = source.adapter is not None
    return _load(source.base, source.kind, source.held, source.table, trained_so=of_adapter)


def load_plain(
    name: str | Path, revision: str | None = None, dtype: str = "fp32", widen: bool = False
) -> Model:
    """Load a model with all matrices as parameters, whatever their format in the file.

    widen: as in `read_parts`.
    """
    kind = precision(dtype)
    return Model(read_parts(describe(name, revision), kind, None, widen=widen), kind, None)


def load_for_folder(name: str | Path, revision: str | None, kind: str) -> Model:
    """Load a model with linear maps in a quantized format, and token embedding and output matrix in
    bf16, as folders for other programs store them.

    Raises ModelError if the model is already quantized.
    """
    described = describe(name, revision)
    family_of(described)
    if is_quantized(described.published):
        raise ModelError(
            "the model is quantised already, and to quantise twice adds one error to the other",
            where=str(described.folder),
            do="take the model that it was made from",
        )
    return _load(described, torch.float32, check_weight_kind(kind), table="bf16")


def _load(
    described: Description,
    kind: torch.dtype,
    held: str | None,
    table: str | None = None,
    trained_so: bool = False,
) -> Model:
    return Model(read_parts(described, kind, held, table, trained_so), kind, held)
