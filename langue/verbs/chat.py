"""Chat with a model turn by turn: stream its answers, and save the conversation as training
data.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langue.errors import DataError, ModelError
from langue.files import write_text
from langue.generation.request import Completion, FinishReason
from langue.runs.model import Model
from langue.text.tokenizers.chat import PROBE
from langue.verbs.generate import ready

MAX_TOKENS = 1024  # of an answer, if neither the user nor the model's files set a limit
MOST_POSITIONS = 32_768  # of a conversation, whose KV cache stays in memory


def chat(
    model: str | Path | Model,
    *,
    system: str | None = None,
    plain: bool = False,
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    seed: int = 0,
    stop: Sequence[str] | None = None,
    weights: str | None = None,
    revision: str | None = None,
) -> "Conversation":
    """Start a conversation with a chat model: `"".join(chat(model).say("Hello"))`.

    model: a Hub name, folder or run, or a loaded model.
    system: the system message.
    plain: do not use a chat template; the model continues the raw text, turn after turn.
    max_tokens: limit of an answer; None: that of the model's files or, if they have none, 1,024.
    weights: precision of the weights, as in `langue.load`.
    revision: a branch, tag or commit on the Hub.
    Other options: as in `Model.generate`.

    Raises ModelError if the model has no chat template and `plain` is not set, or if it does not
    support an option.
    """
    given = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "stop": stop,
    }
    options = {name: value for name, value in given.items() if value not in (None, [], ())}
    loaded = ready(model, revision, weights)
    return Conversation(loaded, system=system, plain=plain, seed=seed, **options)


@dataclass(frozen=True)
class Turn:
    """A question and its answer."""

    question: str
    answer: str
    finish_reason: FinishReason  # cancelled: by `Conversation.stop`
    # whether it ended because the model has no further positions
    at_last_position: bool = False
    prompt_tokens: int = 0
    # those prompt tokens whose keys and values were in the cache
    cached_tokens: int = 0

    @property
    def is_whole(self) -> bool:
        """Return whether the model itself ended the answer."""
        return self.finish_reason == "stop"


class Conversation:
    """The turns of a conversation; the KV cache of earlier turns is reused."""

    def __init__(
        self,
        model: Model,
        *,
        system: str | None = None,
        plain: bool = False,
        seed: int = 0,
        **options: Any,
    ) -> None:
        """options: those of `TextEngine.submit`, for every answer.

        Raises ModelError if an option is not supported, or if the model has no chat template and
        plain is False.
        """
        self.model = model
        self.plain = plain
        self.seed = seed
        self.options = {"max_tokens": _most_tokens(model), "beams": 1, **options}
        self.turns: list[Turn] = []
        self.unanswered: str | None = None  # the last question, if it has no answer
        self.system: str | None = None
        self.saved: Path | None = None
        self._tries = 0  # number of retries of the last question
        self._is_stopped = False
        if not plain and not model.tokenizer.has_chat_template:
            raise ModelError(
                "the model has no chat template, so it was not taught to answer",
                where=str(model.checkpoint.folder or ""),
                do=(
                    "--plain has it go on with your text; langue finetune --task chat --model MODEL"
                    " --data CONVERSATIONS --out RUN makes a model that answers"
                ),
            )
        if plain and model.config.architecture == "encoder-decoder":
            raise ModelError(
                "an encoder-decoder does not go on with a text",
                do="langue generate MODEL --prompt TEXT has it answer one",
            )
        positions = min(model.config.longest, MOST_POSITIONS)
        self._engine = model.engine(rows=1, tokens=positions)
        self._check_options()
        if system is not None:
            self.set_system(system)

    def __repr__(self) -> str:
        return f"Conversation({self.model!r}, {len(self.turns):,} turns)"

    def _repr_html_(self) -> str:
        from langue.runs.notebook import as_html
        from langue.runs.show import print_turns

        said = [(turn.question, turn.answer) for turn in self.turns]
        return as_html(lambda console: print_turns(said, console))

    def say(self, text: str) -> Iterator[str]:
        """Yield the answer to a message piece by piece, and keep the turn, unless the answer is
        empty.

        If an error occurs, the conversation stays as it was.
        """
        self._tries = 0
        return self._answer(list(self.turns), text)

    def retry(self) -> Iterator[str]:
        """Yield another answer to the last message, in place of the previous one, which is kept if
        the new one fails. Every retry uses the next seed; with greedy decoding the answer is the
        same.
        """
        self._tries += 1
        if self.unanswered is not None:
            return self._answer(list(self.turns), self.unanswered)
        last = self._last()
        return self._answer(self.turns[:-1], last.question)

    def stop(self) -> None:
        """End the current answer after its next token; may be called from a signal handler."""
        self._is_stopped = True

    def undo(self) -> str:
        """Remove the last turn, and return its question."""
        if self.unanswered is not None:
            question = self.unanswered
            self.unanswered = None
            return question
        last = self._last()
        self.turns.pop()
        self._tries = 0
        return last.question

    def clear(self) -> None:
        """Remove all turns; the system message stays."""
        self.turns = []
        self.unanswered = None
        self.saved = None
        self._tries = 0

    def set_system(self, text: str | None) -> None:
        """Set the system message from the next answer on; ModelError if the chat template does not
        support one.
        """
        if text is not None:
            self._check_system()
        self.system = text

    @property
    def messages(self) -> list[dict[str, str]]:
        """Return the conversation as a list of `{"role", "content"}`."""
        return self._messages(self.turns)

    @property
    def text(self) -> str:
        """Return all questions and answers of a plain conversation as one text."""
        return "".join(_plain(turn) for turn in self.turns)

    def save(self, file: str | Path) -> None:
        """Write the conversation as one line of JSON: `{"messages"}`, the format of chat training
        data, or `{"text"}` for a plain one. Raises DataError if there is no answer yet, or if
        another file exists.
        """
        if not self.turns:
            raise DataError("nothing was answered yet, so nothing is saved", do="say something")
        path = Path(file).expanduser()
        if path.exists() and path.absolute() != self.saved:
            raise DataError("there is such a file already", where=str(path), do="choose another")
        row = {"text": self.text} if self.plain else {"messages": self.messages}
        write_text(path, json.dumps(row, ensure_ascii=False) + "\n")
        self.saved = path.absolute()

    def _answer(self, before: list[Turn], question: str) -> Iterator[str]:
        self._is_stopped = False
        prompt: Any
        if self.plain:
            prompt = "".join(_plain(turn) for turn in before) + question
        else:
            prompt = [*self._messages(before), {"role": "user", "content": question}]
        id = self._engine.submit(prompt, seed=self.seed + self._tries, **self.options)
        answer = self._engine.peek(id)
        try:
            while answer.finish_reason is None:
                if self._is_stopped:
                    self._engine.cancel(id)
                for delta in self._engine.step():
                    if delta.text:
                        yield delta.text
        finally:
            self._forget(id, answer)
            self._keep(before, question, answer)
        if answer.error is not None:
            raise answer.error

    def _forget(self, id: int, answer: Completion) -> None:
        """Remove a request from the engine, finished or not."""
        if answer.finish_reason is None:
            self._engine.cancel(id)
            self._engine.step()
        self._engine.collect(id)

    def _keep(self, before: list[Turn], question: str, answer: Completion) -> None:
        text = answer.text if self.plain else answer.text.strip()  # do not train on blank answers
        if answer.error is not None or not text or answer.finish_reason is None:
            if len(before) == len(self.turns):  # there is no previous answer to keep
                self.unanswered = question
            return
        self.unanswered = None
        turn = Turn(
            question,
            answer.text,
            answer.finish_reason,
            answer.at_last_position,
            answer.prompt_tokens,
            answer.cached_tokens,
        )
        self.turns = [*before, turn]

    def _last(self) -> Turn:
        if not self.turns:
            raise DataError("nothing was said yet", do="say something")
        return self.turns[-1]

    def _messages(self, turns: Sequence[Turn]) -> list[dict[str, str]]:
        found = []
        if self.system is not None:
            found.append({"role": "system", "content": self.system})
        for turn in turns:
            found.append({"role": "user", "content": turn.question})
            found.append({"role": "assistant", "content": turn.answer})
        return found

    def _check_options(self) -> None:
        """Raise ModelError for unsupported options, by submitting a request that is cancelled
        before it starts.
        """
        id = self._engine.submit([0], seed=self.seed, **self.options)
        self._engine.cancel(id)
        self._engine.step()
        self._engine.collect(id)

    def _check_system(self) -> None:
        if self.plain:
            raise ModelError(
                "a plain text has no system message", do="leave out --plain, or say it in the text"
            )
        system = {"role": "system", "content": PROBE}
        text = self.model.tokenizer.chat([system, {"role": "user", "content": "question"}])
        if PROBE not in text:
            raise ModelError(
                "the model's chat template leaves system messages out",
                do="say it in the first message",
            )


def _plain(turn: Turn) -> str:
    """Return a turn as text; the next turn begins on a new line."""
    end = "" if turn.answer[-1:].isspace() else "\n"
    return f"{turn.question}{turn.answer}{end}"


def _most_tokens(model: Model) -> int | None:
    """Return the default limit of an answer; None: that of the model's files."""
    config = model.checkpoint.generation
    said = config.max_new_tokens is not None or config.max_length is not None
    return None if said else MAX_TOKENS
