"""What arrives: the logits of a sequence's next token (V,) and the tokens so far. What leaves: the
logits with what a request or a model's generation config forbids, weakens or forces applied.

Each processor does what the one of the same name in `transformers` does to one sequence alone, in
the order in which `transformers` applies them, but for what is forced: that comes last, so that it
is written though it were suppressed. None keeps a state, so that tokens may be taken back.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FORBIDDEN = float("-inf")
Tokens = tuple[int, ...]


class Context:
    """The tokens of one sequence: those given (a decoder's prompt, or an encoder-decoder's start
    token), and those written since.
    """

    def __init__(self, given: Sequence[int] | NDArray[np.int64]) -> None:
        self.given = len(given)
        self.length = self.given
        self._room = np.asarray(given, np.int64).copy()

    @property
    def tokens(self) -> NDArray[np.int64]:
        return self._room[: self.length]

    @property
    def written(self) -> NDArray[np.int64]:
        return self._room[self.given : self.length]

    def add(self, token: int) -> None:
        if self.length == len(self._room):
            self._room = np.concatenate([self._room, np.zeros(self.length + 16, np.int64)])
        self._room[self.length] = token
        self.length += 1

    def undo(self, count: int) -> None:
        """The last `count` written tokens are taken back."""
        if not 0 <= count <= self.length - self.given:
            raise ValueError(f"{count} tokens of {self.length - self.given} cannot be taken back")
        self.length -= count

    def copy(self) -> "Context":
        other = Context(self.tokens)
        other.given = self.given
        return other


class LogitsProcessor(Protocol):
    name: str  # of the setting that asks for it, for errors

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """logits (V,) float32, which is not changed in place; itself where nothing is to do."""


class SequenceBias:
    """A bias is added to the logit of the last token of a sequence, where those before it have just
    been written. Sequences of one token: OpenAI's `logit_bias`. Bias -inf: bad words.
    """

    def __init__(self, biases: Mapping[Tokens, float], name: str) -> None:
        self.name = name
        # length of the tokens before -> those -> last tokens and their biases
        listed: dict[int, dict[Tokens, list[tuple[int, float]]]] = {}
        for (*before, last), bias in biases.items():
            endings = listed.setdefault(len(before), {})
            endings.setdefault(tuple(before), []).append((last, bias))
        self.endings: dict[int, dict[Tokens, tuple[Tensor, Tensor]]] = {}
        for size, found in sorted(listed.items()):
            self.endings[size] = {before: _columns(pairs) for before, pairs in found.items()}

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        tokens = context.tokens
        for size, endings in self.endings.items():
            if size > len(tokens):
                continue
            found = endings.get(tuple(tokens[len(tokens) - size :].tolist()))
            if found is not None:
                last, biases = found
                logits = logits.index_add(0, last.to(logits.device), biases.to(logits.device))
        return logits


def _columns(pairs: Sequence[tuple[int, float]]) -> tuple[Tensor, Tensor]:
    tokens, biases = zip(*pairs, strict=True)
    return torch.tensor(tokens), torch.tensor(biases, dtype=torch.float32)


def bad_words(words: Sequence[Tokens], end: frozenset[int]) -> SequenceBias | None:
    """The last token of a word is forbidden where the tokens before it have been written.

    As the reference has it, a token that ends a text cannot be forbidden as a word; None where no
    word is left.
    """
    found = {word: FORBIDDEN for word in words if len(word) > 1 or word[0] not in end}
    return SequenceBias(found, "bad_words_ids") if found else None


class RepetitionPenalty:
    """Logits of tokens in the context are divided by the penalty, negative ones multiplied by it
    (Keskar et al. 2019, arXiv:1909.05858).
    """

    name = "repetition_penalty"

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        # A token that comes twice is written twice with the same value.
        seen = torch.from_numpy(context.tokens).to(logits.device)
        found = logits[seen]
        weaker = torch.where(found < 0, found * self.penalty, found / self.penalty)
        return logits.scatter(0, seen, weaker)


class CountPenalty:
    """OpenAI's penalties: logit - presence * (count > 0) - frequency * count, where a token's count
    is of what was written, without what was given.
    """

    name = "presence_penalty and frequency_penalty"

    def __init__(self, presence: float, frequency: float) -> None:
        self.presence = presence
        self.frequency = frequency

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        if not len(context.written):
            return logits
        tokens, counts = np.unique(context.written, return_counts=True)
        change = torch.from_numpy(-(self.presence + self.frequency * counts).astype(np.float32))
        return logits.index_add(
            0, torch.from_numpy(tokens).to(logits.device), change.to(logits.device)
        )


class NoRepeatNgram:
    """No n tokens in a row come twice (Paulus et al. 2017, arXiv:1705.04304)."""

    name = "no_repeat_ngram_size"

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        tokens = context.tokens
        places = len(tokens) - self.size + 1  # where n tokens begin that have been written
        if places <= 0:
            return logits
        last = tokens[places:]  # the n - 1 tokens that the next one would complete
        repeats = np.ones(places, bool)
        for offset, token in enumerate(last):
            repeats &= tokens[offset : offset + places] == token
        banned = tokens[self.size - 1 :][repeats]
        return _forbid(logits, torch.from_numpy(banned)) if len(banned) else logits


class MinLength:
    """No text ends before its context has `length` tokens."""

    name = "min_tokens or min_length"

    def __init__(self, length: int, end: frozenset[int]) -> None:
        self.length = length
        self.end = torch.tensor(sorted(end), dtype=torch.int64)

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        return _forbid(logits, self.end) if context.length < self.length else logits


class Suppress:
    """Tokens that are never written; or, with `at`, not where the context has so many tokens."""

    def __init__(self, tokens: Sequence[int], at: int | None, name: str) -> None:
        self.name = name
        self.tokens = torch.tensor(tokens, dtype=torch.int64)
        self.at = at

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        is_here = self.at is None or context.length == self.at
        return _forbid(logits, self.tokens) if is_here else logits


class Forced:
    """One of these tokens comes next where the context has `at` tokens: the language that mBART
    begins with, or the end of a text that has no more room.
    """

    def __init__(self, tokens: Sequence[int], at: int, name: str) -> None:
        self.name = name
        self.tokens = torch.tensor(tokens, dtype=torch.int64)
        self.at = at

    def is_due(self, context: Context) -> bool:
        return context.length == self.at

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        if not self.is_due(context):
            return logits
        only = torch.full_like(logits, FORBIDDEN)
        return only.index_fill(0, self.tokens.to(logits.device), 0.0)


def _forbid(logits: Tensor, tokens: Tensor) -> Tensor:
    return logits.index_fill(0, tokens.to(logits.device), FORBIDDEN)
