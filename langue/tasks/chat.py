"""Fine-tuning on conversations and instructions: a decoder learns to write the assistant's turns.

The chat template of the model (or one of langue's, if it has none) renders a conversation as one
text, which becomes one sequence of a batch. The loss is the cross-entropy of the assistant's
tokens, including the token that ends each turn; all other tokens are context only. The metric is
the perplexity of the assistant's tokens; the report also shows answers that the model generates.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from langue.data.batch import Examples, examples_of, gather
from langue.data.encode import check_vocabulary
from langue.data.encoded import Encoded
from langue.data.pack import sorted_batches
from langue.errors import DataError, ModelError
from langue.hub.checkpoint import Checkpoint
from langue.hub.family import Family
from langue.model.config import ModelConfig
from langue.model.language_model import LanguageModel
from langue.runtime import evaluating
from langue.settings.sections import DataSettings
from langue.statistics import kneser_ney
from langue.statistics.metrics import Measure
from langue.tasks import judgement
from langue.tasks.chat_templates import (
    check_decoder,
    ends_of_turns,
    template_field,
    with_template,
)
from langue.tasks.columns import Columns
from langue.tasks.conversations import (
    ASSISTANT,
    COLUMNS,
    PARTS,
    Conversation,
    all_said,
    given_conversation,
    read_conversation,
    roles_renamed,
    rows_of,
    said_in,
)
from langue.tasks.judgement import Judgement
from langue.tasks.language import language_states, perplexity, select_labelled, token_losses
from langue.tasks.objective import Metrics
from langue.tasks.task import Baseline
from langue.tasks.writing import (
    LOSS_TOKENS,
    Prompt,
    WritingOptions,
    WritingTask,
    Written,
    labelled_examples,
)
from langue.text.tokenizers.assistant_turns import Labelled, Turns, labelled, lost_in, turns_of
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.unknown import Lost

if TYPE_CHECKING:
    from langue.text.read.source import Table

METRICS = ("perplexity", "token_accuracy")
SHOWN = 5  # conversations that the model answers for the report
COUNTED = 20_000_000  # maximum number of tokens from which the n-gram baseline is counted
ORDER = 5


class ChatOptions(WritingOptions):
    template: str | None = template_field()


@dataclass(frozen=True)
class Answered(Written):
    """The result for one conversation: the likelihood of the assistant's turns, and the text that
    the model generates in place of the last one (empty unless it was asked to).
    """

    nats: float = 0.0  # negative log-likelihood, summed over the assistant's tokens
    tokens: float = 0.0
    right: float = 0.0  # tokens whose argmax prediction is correct; NaN: unknown


class Chat(WritingTask):
    """Generation of the assistant's next turn."""

    name = "chat"
    result = "messages"
    Options = ChatOptions
    columns = Columns(
        required=("messages",),
        target="answer",
        optional=(*(each for each in PARTS if each not in ("prompt", "instruction")), "tools"),
        proportional=False,
        synonyms={"messages": ("conversation", "dialog", "dialogue", "chat", "turns")},
    )
    takes_texts: ClassVar[bool] = False
    looks_first: ClassVar[bool] = True
    why_dropped: ClassVar[str] = (
        "that the chat template cannot write, or of which no answer fits data.max_length"
    )
    primary_metric = main_metric = best = "perplexity"
    key = "generated_text"
    settings: ChatOptions

    def __init__(self, settings: ChatOptions, *, max_new_tokens: int | None = None) -> None:
        super().__init__(settings, max_new_tokens=max_new_tokens)
        self._data: DataSettings | None = None
        self._has_told = False

    # --- what the training rows define ---

    @classmethod
    def fit(cls, train: "Table", options: ChatOptions) -> Self:
        made = cls(options)
        rows = rows_of(train)
        if renamed := roles_renamed(rows):
            said = ", ".join(f"{theirs} as {ours}" for theirs, ours in renamed.items())
            made._notes.append(f"{train.origin}: roles are read as templates name them: {said}")
        cls.read_targets(train, options)
        return made

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        return cls(cls.options_of(saved["settings"]), max_new_tokens=saved["max_new_tokens"])

    def to_dict(self) -> dict[str, Any]:
        return {"max_new_tokens": self.max_new_tokens, "settings": self.settings.model_dump()}

    def describe_transformers_support(self, family: Family, data: DataSettings) -> str:
        said = super().describe_transformers_support(family, data)
        return said.replace("texts.", "texts after apply_chat_template.")

    # --- the model ---

    def completed(self, checkpoint: Checkpoint) -> Checkpoint:
        check_decoder(self.name, checkpoint)
        return with_template(checkpoint, self.settings.template, self._notes)

    def use(self, checkpoint: Checkpoint) -> None:
        check_decoder(self.name, checkpoint)
        super().use(checkpoint)

    @property
    def ends(self) -> frozenset[int]:
        return ends_of_turns(self.model)

    def generation(self) -> dict[str, Any]:
        return super().generation() | {"eos_token_id": sorted(self.ends)}

    # --- rows ---

    @classmethod
    def raw_targets(cls, table: "Table") -> list[Any]:
        return rows_of(table)

    @classmethod
    def read_target(cls, value: Any, options: Any, where: Callable[[], str]) -> Conversation:
        return read_conversation(value, where)

    @classmethod
    def items(cls, table: "Table") -> list[Any]:
        found = []
        for row, values in enumerate(rows_of(table)):
            each = read_conversation(values, partial(table.where, row), answered=False)
            found.append({"messages": each.prompt, "tools": each.tools})
        return found

    @classmethod
    def texts(cls, table: "Table") -> list[str]:
        return [_as_text(row) for row in rows_of(table, (*COLUMNS, "prompt", "instruction"))]

    def encode(
        self,
        tokenizer: Tokenizer,
        table: "Table",
        golds: Sequence[Conversation],
        data: DataSettings,
        config: ModelConfig,
    ) -> tuple["Table", Encoded]:
        self._data = data
        turns, faults = self._turns(tokenizer, golds)
        if faults and data.invalid == "error":
            row, fault = next(iter(faults.items()))
            raise DataError(fault.what, where=table.where(row), do=fault.do)
        found = labelled(tokenizer, turns)
        lost = lost_in(tokenizer, found, turns, [all_said(each.messages) for each in golds])
        room = min(data.max_length, config.longest) + 1  # plus one: the last token is only a label
        learnt = np.asarray([int(each.written[1:room].sum()) for each in found])
        kept = np.flatnonzero(learnt > 0)
        self._note_lengths(table, found, learnt, faults, room)
        if not len(kept):
            first = next(iter(faults.values()), None)
            raise DataError(
                "no conversation has an answer that can be learnt"
                + (f": {first.what}" if first else f" within data.max_length = {data.max_length}"),
                where=table.origin,
                do=first.do if first else "raise data.max_length",
            )
        if len(kept) < len(table):
            table = table.select(kept)
            golds = [golds[row] for row in kept.tolist()]
            found = [found[row] for row in kept.tolist()]
        encoded = _encoded(found, golds, room)
        encoded = replace(encoded, examples=replace(encoded.examples, lost=lost))
        check_vocabulary(tokenizer, encoded.examples, config)
        self.settle_length(examples_of([[0] * size for size in _longest_turns(found)]))
        return table, encoded

    def _turns(
        self, tokenizer: Tokenizer, conversations: Sequence[Conversation]
    ) -> tuple[list[Turns], dict[int, DataError]]:
        """Render each conversation with the chat template; also return the error for each row that
        the template cannot render.
        """
        end = tokenizer.end_of_turn()
        token = None if end is None else str(tokenizer.backend.id_to_token(end))
        faults = {}
        made = []
        for row, each in enumerate(conversations):
            try:
                made.append(turns_of(tokenizer, each.messages, each.tools, token))
            except DataError as error:
                faults[row] = error
                made.append(Turns("", []))
        return made, faults

    def _note_lengths(
        self,
        table: "Table",
        found: Sequence[Labelled],
        learnt: NDArray[np.int64],
        faults: Mapping[int, DataError],
        room: int,
    ) -> None:
        """Add notes on how many tokens carry loss and which answers are dropped or cut."""
        notes = []
        if not self._has_told:
            self._has_told = True
            total = sum(min(len(each.ids), room) for each in found)
            notes.append(
                f"{table.origin}: of {total:,} tokens the assistant writes {int(learnt.sum()):,},"
                " which carry the loss; each conversation is a sequence of its own, without"
                " padding, and none reads another"
            )
        if faults:
            row, fault = next(iter(faults.items()))
            notes.append(
                f"{table.origin}: {len(faults):,} conversations cannot be written by the chat"
                f" template, first {table.where(row)}: {fault.what}"
            )
        written = np.asarray([int(each.written.sum()) for each in found])
        lost = np.flatnonzero((learnt == 0) & (written > 0))
        if len(lost):
            notes.append(
                f"{table.origin}: of {len(lost):,} conversations no answer is within"
                f" {room - 1:,} tokens (data.max_length), first {table.where(int(lost[0]))}"
            )
        cut = written - learnt
        short = np.flatnonzero((learnt > 0) & (cut > 0))
        if len(short):
            notes.append(
                f"{table.origin}: of {len(short):,} conversations {int(cut[short].sum()):,} tokens"
                f" of answers are beyond {room - 1:,} tokens (data.max_length), first"
                f" {table.where(int(short[0]))}"
            )
        self._notes += notes

    def encode_items(
        self,
        items: list[Any],
        tokenizer: Tokenizer,
        data: DataSettings,
        config: ModelConfig,
        as_texts: Callable[[list[Any]], Examples],
    ) -> Encoded:
        """Encode prompts: conversations, strings (as one user message), or ready-made lists of
        token ids.
        """
        prompts = []
        lost = Lost(tokenizer)
        for item in items:
            if isinstance(item, list) and item and isinstance(item[0], int):
                prompts.append(Prompt(item))
                continue
            given = given_conversation(item)
            prompts.append(self._prompt(tokenizer, given, config))
            lost.look_for_names([all_said(given.prompt)])
        read = replace(examples_of([prompt.tokens for prompt in prompts] or [[]]), lost=lost)
        return Encoded(read, len(read), context=prompts)

    def _prompt(
        self, tokenizer: Tokenizer, conversation: Conversation, config: ModelConfig
    ) -> Prompt:
        asked = Conversation(conversation.prompt, conversation.tools)
        text = tokenizer.chat(asked.messages, tools=asked.tools)
        ids = list(tokenizer.backend.encode(text, add_special_tokens=False).ids)
        if len(ids) >= config.longest:
            raise ModelError(
                f"a conversation has {len(ids):,} tokens, and the model has room for"
                f" {config.longest:,} with its answer",
                do="leave out its oldest messages",
            )
        return Prompt(ids, asked.as_text())

    # --- what people see ---

    def facts(self) -> dict[str, Any]:
        return {"verb": "chat"}

    def balance(self, golds: Sequence[Conversation]) -> dict[str, float]:
        answers = [len(gold.answers) for gold in golds]
        sizes = [len(said_in(each).split()) for gold in golds for each in gold.answers]
        return {
            "answers": float(sum(answers)),
            "answers of a conversation, mean": float(np.mean(answers)),
            "words of an answer, median": float(np.median(sizes)),
        }

    def show_target(self, gold: Conversation) -> str:
        return said_in(gold.answers[-1])

    # --- judging ---

    def metric_names(self) -> list[str]:
        return list(METRICS)

    def default_best(self) -> str:
        return "perplexity"

    def train_metric(self, outcomes: list[Any], loss: float) -> float | None:
        return perplexity(loss)

    def evaluate(
        self, model: nn.Module, dev: Encoded, *, device: torch.device, dtype: torch.dtype
    ) -> tuple[Metrics, float | None]:
        found, loss = self._scored(model, dev, device, dtype)
        return self.metrics(dev.golds, found), loss

    def apply(
        self,
        model: nn.Module,
        encoded: Encoded,
        *,
        device: torch.device,
        dtype: torch.dtype,
        progress: Callable[[int], None] | None = None,
    ) -> tuple[Any, float | None]:
        """Score the reference answers and generate a sample of answers; without references, only
        generate.
        """
        if encoded.golds is None:
            return super().apply(model, encoded, device=device, dtype=dtype, progress=progress)
        found, loss = self._scored(model, encoded, device, dtype)
        rows = np.linspace(0, len(encoded) - 1, min(SHOWN, len(encoded))).round().astype(np.int64)
        tokenizer = self.model.tokenizer
        prompts = []
        asked = []
        for row in dict.fromkeys(rows.tolist()):
            try:
                prompts.append(self._prompt(tokenizer, encoded.golds[row], self.model.config))
            except ModelError:  # too long to be answered; this is only a sample for the report
                continue
            asked.append(row)
        with evaluating(model):
            for row, written in zip(asked, self.write(model, prompts, dtype), strict=True):
                found[row] = replace(found[row], texts=written.texts, source=written.source)
        if progress is not None:
            progress(len(encoded))
        return found, loss

    @torch.no_grad()
    def _scored(
        self, model: nn.Module, encoded: Encoded, device: torch.device, dtype: torch.dtype
    ) -> tuple[list[Answered], float | None]:
        """Return the sums over the assistant's tokens of each row, and the mean loss."""
        assert isinstance(model, LanguageModel)
        with evaluating(model):
            examples = encoded.examples
            sums = np.zeros((3, len(examples)))  # negative log-likelihood, tokens, correct tokens
            longest = int(examples.lengths.max(initial=1))
            for rows in sorted_batches(examples.lengths, max(LOSS_TOKENS, longest)):
                batch = gather(examples, rows, device)
                assert batch.labels is not None
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    states = select_labelled(language_states(model, batch), batch)
                    losses, right = token_losses(model, states, batch.labels)
                row = batch.rows[batch.label_sequences.cpu().numpy()]
                np.add.at(sums[0], row, losses.cpu().numpy())
                np.add.at(sums[1], row, 1)
                np.add.at(sums[2], row, right.cpu().numpy())
        found = [Answered([], [], "", *row) for row in sums.T.tolist()]
        total = float(sums[1].sum())
        return found, float(sums[0].sum()) / total if total else None

    def measure(self, golds: Any, predictions: Sequence[Answered]) -> Measure:
        nats = np.asarray([each.nats for each in predictions])
        tokens = np.asarray([each.tokens for each in predictions], np.float64)
        right = np.asarray([each.right for each in predictions])

        def measure(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
            count = tokens @ weights  # (R,)
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                return {
                    "perplexity": np.exp(nats @ weights / count),
                    "token_accuracy": right @ weights / count,
                }

        return measure

    def judge(
        self, golds: Any, predictions: Any, main: str | None = None, *, seed: int = 0
    ) -> Judgement:
        found = super().judge(golds, predictions, main, seed=seed)
        rows = []
        for gold, each in zip(golds, predictions, strict=True):
            if not each.texts:
                continue
            given = each.source + f"\n{ASSISTANT}: "
            passage = judgement.Passage(
                given + each.texts[0], [judgement.Highlight(0, len(given), kind="given")]
            )
            last = gold.messages[-1]
            reference = said_in(last) if last["role"] == ASSISTANT else ""
            rows.append(judgement.Example([passage], (reference,)))
        shown = judgement.Examples(
            title="What it answers",
            columns=("reference",),
            rows=rows,
            texts_are="conversation",
            note="The likeliest answer, token by token, to conversations of the data judged on.",
        )
        return replace(found, sections=(*found.sections, shown))

    def baseline(
        self,
        train: tuple["Table", Any],
        test: tuple["Table", Any],
        *,
        metric: str,
        as_model: bool = True,
    ) -> Baseline | None:
        """An n-gram model with the same tokenizer, counted on the training conversations."""
        began = time.perf_counter()
        seen = self._flat_tokens(train[1])
        judged = self._flat_tokens(test[1])
        size = self.model.config.vocab_size
        model = kneser_ney.fit(*seen[:2], vocab_size=size, eos=None, order=ORDER, limit=COUNTED)
        logs = model.log_probabilities(*judged[:2])
        starts = judged[1]
        predictions = []
        for begin, end in zip(starts[:-1], starts[1:], strict=True):
            own = logs[begin:end][judged[2][begin:end]]
            predictions.append(Answered([], [], "", -float(own.sum()), len(own), np.nan))
        metrics = self.metrics(test[1], predictions)
        seconds = round(time.perf_counter() - began, 3)
        return Baseline(f"{model.order}-gram Kneser-Ney", metrics, predictions, seconds)

    def _flat_tokens(
        self, golds: Sequence[Conversation]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.bool_]]:
        """Return the token ids (T,) of all conversations, where each starts, and a mask of the
        assistant's tokens, each conversation truncated to data.max_length.
        """
        assert self._data is not None
        tokenizer = self.model.tokenizer
        room = min(self._data.max_length, self.model.config.longest) + 1
        found = labelled(tokenizer, self._turns(tokenizer, golds)[0])
        starts = np.cumsum([0, *(min(len(each.ids), room) for each in found)])
        tokens = np.concatenate([each.ids[:room] for each in found])
        return tokens, starts, np.concatenate([each.written[:room] for each in found])


def _encoded(found: Sequence[Labelled], golds: Sequence[Conversation], room: int) -> Encoded:
    """Build the input sequences: all tokens but the last, where a token's label is the next token
    if the assistant writes that one.
    """
    tokens = [each.ids[:room][:-1] for each in found]
    labels = [np.where(each.written, each.ids, -1)[1:room] for each in found]
    cut = np.asarray([max(0, len(each.ids) - room) for each in found], np.int32)
    return Encoded(labelled_examples(tokens, labels, cut), len(found), golds)


def _longest_turns(found: Sequence[Labelled]) -> list[int]:
    """Return, for each conversation, the length of the assistant's longest run of tokens."""
    longest = []
    for each in found:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], each.written.astype(np.int8), [0]])))
        longest.append(int(np.diff(edges)[::2].max(initial=1)))
    return longest


def _as_text(row: Mapping[str, Any]) -> str:
    parts = []
    for value in row.values():
        if isinstance(value, list):
            parts += [
                str(each.get("content")) if isinstance(each, Mapping) else str(each)
                for each in value
            ]
        elif value is not None:
            parts.append(str(value))
    return "\n".join(parts)
