"""Requests to the engine, and its answers, incremental and complete."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from langue.errors import LangueError, ModelError
from langue.generation.sample import Choice, Sampling
from langue.hub.generation_config import GenerationConfig

# stop: an end token, a stop string, or a constraint that is complete. length: max_tokens, or the
# model's last position.
FinishReason = Literal["stop", "length", "cancelled", "deadline", "error"]


@dataclass(frozen=True)
class Beams:
    """Settings of beam search."""

    width: int  # number of beams
    n: int = 1  # number of hypotheses to return, at most `width`
    length_penalty: float = 1.0  # exponent of the length by which log-probabilities are divided
    # True: stop when `width` hypotheses are complete; False: when no better one can be expected at
    # this length; "never": at any length
    early_stopping: bool | str = False

    def __post_init__(self) -> None:
        if self.width < 1 or not 1 <= self.n <= self.width:
            raise ModelError(
                f"{self.n} answers of {self.width} beams", do="give 1 beam or more, and n <= beams"
            )
        if not math.isfinite(self.length_penalty):
            raise ModelError(
                f"length_penalty = {self.length_penalty} cannot be followed",
                do="give a finite number; 0 is none",
            )
        if self.early_stopping not in (True, False, "never"):
            raise ModelError(
                f"early_stopping = {self.early_stopping!r} cannot be followed",
                do='give True, False or "never"',
            )


@dataclass(frozen=True)
class Request:
    """One prompt, and how to continue it."""

    prompt: Sequence[int]  # token ids; of the source, for an encoder-decoder
    sampling: Sampling = field(default_factory=Sampling)
    config: GenerationConfig = field(default_factory=GenerationConfig)
    stop: Sequence[str] = ()  # strings that end the text, and are not included in it
    beams: Beams | None = None  # None: one sequence, greedy or sampled
    # index among several answers to one prompt, which have different random numbers
    sample: int = 0
    as_text: bool = False  # whether text is needed, in addition to token ids
    prompt_logprobs: bool = False  # whether the log-probabilities of the prompt's tokens are needed
    priority: int = 0  # higher priorities are admitted first
    owner: str = ""  # owners are served in turn, and do not share prefixes in the cache
    deadline: float | None = None  # on the clock of the caller of `Engine.step`


@dataclass
class Completion:
    """The answer to a request, partial or complete."""

    tokens: list[int] = field(default_factory=list)  # without the end token
    text: str = ""
    finish_reason: FinishReason | None = None  # None: not finished
    error: LangueError | None = None
    choices: list[Choice] = field(default_factory=list)  # log-probabilities, if requested
    prompt_choices: list[Choice | None] = field(default_factory=list)  # None: the first token's
    prompt_tokens: int = 0
    cached_tokens: int = 0  # number of prompt tokens found in the prefix cache
    # of beam search: log-probability divided by length ** length_penalty
    score: float | None = None
    # of beam search, including this one, which is first
    n_best: list["Completion"] = field(default_factory=list)
    at_last_position: bool = False  # whether it ended because the model has no more positions


@dataclass(frozen=True)
class Delta:
    """What one step adds to the answer of a request."""

    id: int
    tokens: Sequence[int] = ()
    text: str = ""
    choices: Sequence[Choice] = ()
    finish_reason: FinishReason | None = None
    error: LangueError | None = None

    def followed_by(self, other: "Delta") -> "Delta":
        """Return both deltas as one."""
        return Delta(
            self.id,
            [*self.tokens, *other.tokens],
            self.text + other.text,
            [*self.choices, *other.choices],
            other.finish_reason,
            other.error,
        )
