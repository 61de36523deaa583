"""What arrives: what a caller asks of the engine. What leaves: what the engine answers, piece by
piece and whole.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from langue.errors import LangueError, ModelError
from langue.generation.sample import Choice, Sampling
from langue.hub.generation_config import GenerationConfig

# stop: an end token, a stop string, or a constraint that allows nothing more. length: max_tokens,
# or the model's last position.
FinishReason = Literal["stop", "length", "cancelled", "deadline", "error"]


@dataclass(frozen=True)
class Beams:
    """A search for the likeliest whole answers."""

    width: int  # beginnings that are looked at together
    n: int = 1  # answers that are kept, at most `width`
    length_penalty: float = 1.0  # the power of the length that log-probabilities are divided by
    # True: over when `width` answers are complete; False: when no better one is to be expected of
    # this length; "never": of any length
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
    """One prompt, and how to go on from it."""

    prompt: Sequence[int]  # token ids; of an encoder-decoder: the source's
    sampling: Sampling = field(default_factory=Sampling)
    config: GenerationConfig = field(default_factory=GenerationConfig)
    stop: Sequence[str] = ()  # strings that end the text, and are not part of it
    beams: Beams | None = None  # None: one sequence, whose tokens are the likeliest or drawn
    sample: int = 0  # which of several answers to one prompt: the seed's draws differ
    as_text: bool = False  # whether text is wanted, beside token ids
    prompt_logprobs: bool = False  # whether those of the prompt's tokens are wanted too
    priority: int = 0  # the higher go first
    owner: str = ""  # owners take turns, and see nothing of each other's prompts in the cache
    deadline: float | None = None  # on the clock of who calls `Engine.step`


@dataclass
class Completion:
    """What became of a request: so far, or in the end."""

    tokens: list[int] = field(default_factory=list)  # without the end token
    text: str = ""
    finish_reason: FinishReason | None = None  # None: it goes on
    error: LangueError | None = None
    choices: list[Choice] = field(default_factory=list)  # log-probabilities, where asked for
    prompt_choices: list[Choice | None] = field(default_factory=list)  # None: the first token's
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt's, those whose keys and values were there
    score: float | None = None  # of beams: log-probability over the power of the length
    n_best: list["Completion"] = field(default_factory=list)  # of beams, this one first
    at_last_position: bool = False  # whether it ended since the model has no more positions


@dataclass(frozen=True)
class Delta:
    """What one step adds to a request's answer."""

    id: int
    tokens: Sequence[int] = ()
    text: str = ""
    choices: Sequence[Choice] = ()
    finish_reason: FinishReason | None = None
    error: LangueError | None = None

    def followed_by(self, other: "Delta") -> "Delta":
        """Both as one."""
        return Delta(
            self.id,
            [*self.tokens, *other.tokens],
            self.text + other.text,
            [*self.choices, *other.choices],
            other.finish_reason,
            other.error,
        )
