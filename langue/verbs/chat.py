"""What arrives: a model, and what somebody says to it, turn by turn. What leaves: its answers,
piece by piece, and the conversation as training data.
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

MAX_TOKENS = 1024  # of an answer, where neither the user nor the model's files say
MOST_POSITIONS = 32_768  # of a conversation, whose keys and values are held in memory


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
    """A conversation with a model that has a chat template: `"".join(chat(model).say("Hello"))`.

    system: what the model is told before the first turn. plain: without a template; the model goes
    on with the text as it stands, turn after turn. The other options are those of `Model.generate`;
    max_tokens: of an answer, 1,024 where neither the caller nor the model's files say.
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
    """What was said, and what was answered."""

    question: str
    answer: str
    finish_reason: FinishReason  # cancelled: it was stopped
    at_last_position: bool = False  # whether it ended since the model has no more positions
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt's, those that an earlier turn had read

    @property
    def is_whole(self) -> bool:
        """Whether the model ended the answer itself."""
        return self.finish_reason == "stop"


class Conversation:
    """Turns of one conversation, on an engine of its own: what earlier turns have read is not read
    again.
    """

    def __init__(
        self,
        model: Model,
        *,
        system: str | None = None,
        plain: bool = False,
        seed: int = 0,
        **options: Any,
    ) -> None:
        """options: those of `TextEngine.submit`, of every answer. ModelError where one of them
        cannot be followed, or where the model has no chat template and plain is False.
        """
        self.model = model
        self.plain = plain
        self.seed = seed
        self.options = {"max_tokens": _most_tokens(model), "beams": 1, **options}
        self.turns: list[Turn] = []
        self.unanswered: str | None = None  # what was said last, where no answer came
        self.system: str | None = None
        self.saved: Path | None = None
        self._tries = 0  # answers to the last question
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
        """What the model answers, piece by piece; the turn is then kept, but for an answer in which
        there is nothing. Errors leave the conversation as it was.
        """
        self._tries = 0
        return self._answer(list(self.turns), text)

    def retry(self) -> Iterator[str]:
        """Another answer to what was said last, in the place of the one before, which is kept where
        no new one comes. Draws go on from the seed; without any, the answer is the same.
        """
        self._tries += 1
        if self.unanswered is not None:
            return self._answer(list(self.turns), self.unanswered)
        last = self._last()
        return self._answer(self.turns[:-1], last.question)

    def stop(self) -> None:
        """End the answer that is being written, after its next token; for signal handlers too."""
        self._is_stopped = True

    def undo(self) -> str:
        """Take back the last turn; what was said in it."""
        if self.unanswered is not None:
            question = self.unanswered
            self.unanswered = None
            return question
        last = self._last()
        self.turns.pop()
        self._tries = 0
        return last.question

    def clear(self) -> None:
        """Begin anew; the system message stays."""
        self.turns = []
        self.unanswered = None
        self.saved = None
        self._tries = 0

    def set_system(self, text: str | None) -> None:
        """Tell the model this before the first turn, from the next answer on. ModelError where its
        template has no place for it.
        """
        if text is not None:
            self._check_system()
        self.system = text

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation as `{"role", "content"}`."""
        return self._messages(self.turns)

    @property
    def text(self) -> str:
        """Of a plain conversation: all that was said and written."""
        return "".join(_plain(turn) for turn in self.turns)

    def save(self, file: str | Path) -> None:
        """Write the conversation as a line of JSON: `{"messages"}`, which a chat model is trained
        on, or `{"text"}` of a plain one. DataError where nothing is there, or another file is.
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
        """Take a request out of the engine, whether or not it has ended."""
        if answer.finish_reason is None:
            self._engine.cancel(id)
            self._engine.step()
        self._engine.collect(id)

    def _keep(self, before: list[Turn], question: str, answer: Completion) -> None:
        text = answer.text if self.plain else answer.text.strip()  # blank is no answer to train on
        if answer.error is not None or not text or answer.finish_reason is None:
            if len(before) == len(self.turns):  # nothing stands there from an earlier try
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
        """ModelError where an option cannot be followed: a request is made, and taken out before it
        is begun.
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
    """A turn as text that goes on: the next one begins on a line of its own."""
    end = "" if turn.answer[-1:].isspace() else "\n"
    return f"{turn.question}{turn.answer}{end}"


def _most_tokens(model: Model) -> int | None:
    """Of an answer, where the user does not say; None: as the model's files say."""
    config = model.checkpoint.generation
    said = config.max_new_tokens is not None or config.max_length is not None
    return None if said else MAX_TOKENS
