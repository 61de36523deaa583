"""What arrives: a Hub name, a folder or a run. What leaves: a model in use: hidden states,
embeddings, predictions.
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

PAIR = "pair"  # the column of the second text
DEFAULT = "default"  # the name of the adapter that a folder is loaded with
# how many labels of a text are shown: what the task gives, so many, or all
Top = int | Literal["auto"] | None


class Model:
    """A loaded model. Texts may be strings, (text, pair) tuples, or lists of token ids."""

    def __init__(self, parts: Parts, dtype: torch.dtype, weights: str | None = None) -> None:
        """dtype: of the products. weights: what its matrices are held in, where `load` was told."""
        self.config = parts.checkpoint.config
        self.device = device_of(parts.body)
        self.dtype = dtype
        self.weights = weights
        # the model by the names of its adapters, and without one
        self._parts: dict[str | None, Parts] = {None: parts}
        self.adapter: str | None = None  # the name of the adapter in use
        self._take(self._parts[None])

    def __repr__(self) -> str:
        from langue.runs.show import model_facts

        facts = model_facts(self)
        return f"Model({facts.pop('name')!r}: {'; '.join(facts.values())})"

    def _repr_html_(self) -> str:
        from langue.runs.notebook import as_html
        from langue.runs.show import model_facts, print_pairs

        return as_html(lambda console: print_pairs(model_facts(self), console))

    def _take(self, parts: Parts) -> None:
        """Be made of these from now on."""
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
        self.is_published = False  # whether the task is one that a published folder stands for
        # what the task is of; None: not known
        self.pairs: bool | None = (checkpoint.task or {}).get("pairs")

    def add_adapter(self, folder: str | Path, name: str) -> None:
        """Load an adapter of this model, of `langue finetune` or of PEFT, beside it, to be used
        once `use_adapter` names it. It shares the model's weights.

        ModelError where it is of another base.
        """
        from langue.runs.adapters import parts_with_adapter

        if name in self._parts:
            raise ModelError(f"there is an adapter {name!r} already", do="give it another name")
        self._parts[name] = parts_with_adapter(self._parts[None], folder)

    def beside(self, folder: str | Path) -> "Model":
        """Another model, of this one's weights with an adapter beside them; both are in use at the
        same time. ModelError where the adapter is of another base.
        """
        from langue.runs.adapters import parts_with_adapter

        return Model(parts_with_adapter(self._parts[None], folder), self.dtype, self.weights)

    def use_adapter(self, name: str | None) -> None:
        """Answer with this adapter, its head and its task from now on; None: as the base does."""
        if name not in self._parts:
            known = ", ".join(repr(each) for each in self._parts if each is not None)
            raise ModelError(
                f"there is no adapter {name!r}",
                do=f"known: {known or 'none'}; add_adapter(folder, name) loads one",
            )
        self.adapter = name
        self._take(self._parts[name])

    @property
    def adapters(self) -> list[str]:
        """The names of the adapters that are loaded."""
        return [name for name in self._parts if name is not None]

    @cached_property
    def _sentence_encoder(self) -> SentenceEncoder:
        return SentenceEncoder(self.checkpoint, self.body, self.inputs)

    @cached_property
    def _text_generator(self) -> TextGenerator:
        return TextGenerator(self.checkpoint, self._language(), self.inputs, self.dtype)

    @cached_property
    def likelihoods(self) -> "Likelihoods":
        """How likely the model takes texts to be, after others."""
        from langue.runs.likelihood import Likelihoods

        return Likelihoods(self.checkpoint, self._language(), self.inputs, self.dtype)

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
        dim: int | None = None,
    ) -> NDArray[np.float32]:
        """One vector a text, (N, D).

        A folder of sentence-transformers is followed: its max_seq_length, pooling, Dense and
        Normalize modules, and its default prompt. Elsewhere the vector is the mean of the text's
        hidden states. A longer text is cut, with a LangueWarning that counts.

        pool: plain pooled hidden states instead: mean, first (cls), last (lasttoken), max,
        mean_sqrt_len or weightedmean. prompt: put before each string; prompt_name: the one that the
        model has under this name. Token ids are taken as they are. dim: so many of the vectors'
        first elements alone, which a model that was trained with task.matryoshka is made for; of
        length 1 where the whole ones are.
        """
        encoder = self._sentence_encoder
        return encoder.encode(texts, pool, prompt, prompt_name, self.dtype, dim)

    def encode_query(self, texts: Texts, dim: int | None = None) -> NDArray[np.float32]:
        """As `encode`, with the model's prompt for what is searched for, where it has one."""
        return self.encode(texts, prompt_name=self._prompt_name("query"), dim=dim)

    def encode_document(self, texts: Texts, dim: int | None = None) -> NDArray[np.float32]:
        """As `encode`, with the model's prompt for what is searched, where it has one."""
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
        """What the head gives before softmax or sigmoid: (N, labels) of a task model, one (t, V)
        array a text of a language model, or of a task that scores tokens.

        An encoder-decoder takes sources and targets. A target's row i is the score of what follows
        its first i + 1 tokens; of strings, the start token is put before and the last token left
        off, so that row i scores token i. source_language, target_language: as in `generate`.
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
        """What the model writes after each prompt (an encoder-decoder: for each source), up to its
        end token.

        Strings give strings, lists of token ids lists of token ids; conversations, lists of
        `{"role", "content"}`, give what is answered, where the model has a chat template. What is
        not given is as the model's generation_config.json says, as in `transformers`; where it says
        nothing: 64 new tokens, the likeliest each time (temperature 0), with top_k 0 (all) and
        top_p 1. A LangueWarning names what it says and is not implemented. A prompt that is longer
        than the model's positions is an error.

        What a prompt gives does not depend on the others. seed: of all, or one a prompt. n: answers
        to each prompt, in a list. beams: beam search, whose n best are given. stop: strings that
        end a text and are left off. logit_bias: token id -> what is added to its logit. logprobs:
        0, or how many of the likeliest tokens are told beside the chosen one. json_schema, regex,
        choices, and grammar (Lark): what the text must be, by construction. details: each answer is
        `{"text", "tokens", "logprobs", "finish_reason"}`.

        options: typical_p, early_stopping, grammar, prompt_logprobs, draft ("prompt", or a smaller
        model, which guesses draft_tokens a step for the model to check), and source_language and
        target_language, of a translation model of many languages, by its own codes; None: as the
        run's settings say, or the model's files.
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
        """The choices by how likely the model takes each to follow the prompt, the likeliest first:
        `{"choice", "score", "logprob", "tokens"}`, the scores adding up to 1.

        Of several prompts, a list each; choices: for all, or a list a prompt. normalize: tokens,
        characters or bytes, which the log-likelihood is divided by, lest short choices be
        favoured. neutral: one or several prompts that say nothing, by which scores are calibrated,
        lest frequent choices be. delimiter: between prompt and choice where there is no blank;
        None: one of a decoder.
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
        """Labels of texts without training, `{"sequence", "labels", "scores"}` a text, the
        likeliest first, as the `transformers` pipeline gives them.

        By a classifier that knows entailment, or else by a language model, which goes on with the
        text, a new line and the template, or with a template that has {text} in it; there,
        examples: (text, label) shown before; normalize as in `rank`; calibrate: by texts without
        content. multi_label: each label by itself.
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
        """Answers to questions, each a part of its context, as a language model gives them without
        training: of each question the likeliest, `{"score", "start", "end", "answer"}`, at most
        `top`. A score is the probability that the model writes exactly this answer.

        The model writes after the template, held to whole words of the context that stand on one
        line; the likeliest are found by beam search. contexts: one for each question, or one for
        all. examples: (question, context, answer) shown before. no_answer: what is written where
        the context does not answer, such as "unanswerable"; the answer is then "", as is that of
        an example without one. None: every question gets an answer.
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
        """What the masks of each text may be, the likeliest first, as the `transformers` pipeline
        gives it: `{"score", "token", "token_str", "sequence"}`.

        A text of several masks has a list for each, found as if the others stayed masked. targets:
        among these tokens alone.
        """
        from langue.runs.fill_mask import MaskFiller

        filler = MaskFiller(self.checkpoint, self._language(), self.inputs)
        return filler.fill(texts, top, targets, self.dtype)

    def stream(self, prompt: Any, **options: Any) -> Iterator[str]:
        """What the model writes after one prompt, piece by piece as it comes; the options are those
        of `generate`, but for n and beams. The pieces joined are the text.
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
        """For programs that submit prompts at any time, and collect what is written step by step.

        memory: bytes for keys and values, never passed; None: half of what is free. rows: sequences
        that are written at a time; tokens: that all of these have at most. draft, draft_tokens: as
        in `generate`.
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
        """The class of `transformers` that the folder says it is of, where that scores tokens and
        the folder has no weights for it.
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
        """Which of these texts, pairs or lists of token ids have something in them, and these
        encoded.
        """
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
        """Rows to predict from: the columns that the task reads, without the target. keep: others
        that are read too, each under its name after KEPT; "all": all of them.
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
        """The columns that rows may have besides: the pair where the run may be one of pairs."""
        optional = self._trained()[0].columns.optional
        return tuple(name for name in optional if name != PAIR or self.pairs is not False)

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
        round.
        """
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
        """Write a folder that `load`, and `transformers` where it has the architecture, read.

        Matrices of int8 or int4 are written in the layout of `compressed-tensors`. Of a model with
        an adapter in use the adapter alone is written; `langue convert --merge` writes the whole.
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
        """Whether there is something that it predicts: its run's, or its published folder's."""
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
        """As `Inputs.examples`."""
        return self.inputs.examples(texts, **options)


def _with_draft(options: Options) -> Options:
    """With the draft model loaded, where it is given by its name."""
    draft = options.draft
    if draft is None or draft == LOOK_UP or isinstance(draft, Model):
        return options
    return replace(options, draft=load(draft))


def _data_settings(checkpoint: Checkpoint) -> DataSettings:
    """How the task's texts are cut: as the run says, or as `transformers` cuts what it
    published.
    """
    if checkpoint.task is not None:
        return DataSettings.of_run(checkpoint.task.get("data", {}))
    inputs = Inputs(checkpoint)
    return DataSettings(max_length=max(4, inputs.room.tokens), truncation=inputs.cut_side)


def load(
    name: str | Path, revision: str | None = None, dtype: str = "fp32", weights: str | None = None
) -> Model:
    """Load a model for use.

    dtype: fp32, bf16, or auto (bf16 where the hardware has it): what its matrices are held and
    multiplied in. weights: fp32, bf16, int8 or int4: what its matrices alone are held in, to be
    multiplied with states in fp32; for int8 and int4 in groups of 32 numbers with a scale (the
    table of tokens of an int4 model in int8). What cannot be grouped is held in bf16, with a
    LangueWarning. "stored": as the file has them, which is a GGUF file's Q8_0, Q4_0, Q4_K or Q6_K,
    a folder of `langue compress quantize` (which is held so in any case, unless dtype or weights
    say otherwise), or the precision of each matrix. Of an adapter it is what the base's are held
    in, by default as it was trained; the adapter is in use, under the name "default".
    """
    source = source_of(name, revision, dtype, weights)
    model = load_base(source)
    if source.adapter is not None:
        model.add_adapter(source.adapter, DEFAULT)
        model.use_adapter(DEFAULT)
    return model


def load_base(source: WeightSource) -> Model:
    """Load a described model, without the adapter that it may be."""
    of_adapter = source.adapter is not None
    return _load(source.base, source.kind, source.held, source.table, trained_so=of_adapter)


def load_plain(
    name: str | Path, revision: str | None = None, dtype: str = "fp32", widen: bool = False
) -> Model:
    """`load`, with all matrices as parameters, whatever the file has them as. widen: as of
    `read_parts`.
    """
    kind = precision(dtype)
    return Model(read_parts(describe(name, revision), kind, None, widen=widen), kind, None)


def load_for_folder(name: str | Path, revision: str | None, kind: str) -> Model:
    """`load` with the linear maps in a kind, and the tables of tokens and the output matrix in
    bf16: as a folder holds them that other programs read. ModelError for one that is quantised
    already.
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
