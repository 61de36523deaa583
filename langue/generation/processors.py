"""Logits processors: take the logits (V,) of a sequence's next token and the tokens so far; return
the logits after the bans, penalties and forced tokens of a request and a generation config.

Each matches the processor of the same name in `transformers` applied to a single sequence, and
their order is the same, except that forced tokens come last, so that they win over suppressed ones.
None has state, so that tokens may be taken back.
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
    token), and those generated since.
    """

    def __init__(self, given: Sequence[int] | NDArray[np.int64]) -> None:
        self.given = len(given)
        self.length = self.given
        self._buffer = np.asarray(given, np.int64).copy()

    @property
    def tokens(self) -> NDArray[np.int64]:
        return self._buffer[: self.length]

    @property
    def written(self) -> NDArray[np.int64]:
        return self._buffer[self.given : self.length]

    def add(self, token: int) -> None:
        if self.length == len(self._buffer):
            self._buffer = np.concatenate([self._buffer, np.zeros(self.length + 16, np.int64)])
        self._buffer[self.length] = token
        self.length += 1

    def undo(self, count: int) -> None:
        """Take back the last `count` generated tokens."""
        if not 0 <= count <= self.length - self.given:
            raise ValueError(f"{count} tokens of {self.length - self.given} cannot be taken back")
        self.length -= count

    def copy(self) -> "Context":
        other = Context(self.tokens)
        other.given = self.given
        return other


class LogitsProcessor(Protocol):
    name: str  # the setting that enables it, for error messages

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """Return the processed logits (V,), float32; never changes them in place, and returns them
        as they are if nothing applies.
        """


class SequenceBias:
    """Adds a bias to the logit of a sequence's last token, if its other tokens were just generated.
    Sequences of one token: OpenAI's `logit_bias`. A bias of -inf: bad words.
    """

    def __init__(self, biases: Mapping[Tokens, float], name: str) -> None:
        self.name = name
        # length of the preceding tokens -> these tokens -> last tokens and their biases
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
    """Forbid the last token of each word after its other tokens.

    As in `transformers`, an end token cannot be forbidden as a word. Returns None if no word is
    left.
    """
    found = {word: FORBIDDEN for word in words if len(word) > 1 or word[0] not in end}
    return SequenceBias(found, "bad_words_ids") if found else None


class RepetitionPenalty:
    """Divides the positive logits of tokens in the context by the penalty, and multiplies negative
    ones by it (Keskar et al. 2019, arXiv:1909.05858).
    """

    name = "repetition_penalty"

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        # A token that occurs twice is written twice, with the same value.
        seen = torch.from_numpy(context.tokens).to(logits.device)
        found = logits[seen]
        weaker = torch.where(found < 0, found * self.penalty, found / self.penalty)
        return logits.scatter(0, seen, weaker)


class CountPenalty:
    """OpenAI's penalties: logit - presence * (count > 0) - frequency * count, where the counts are
    those of generated tokens, not of the prompt.
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
    """Forbids tokens that would repeat an n-gram (Paulus et al. 2017, arXiv:1705.04304)."""

    name = "no_repeat_ngram_size"

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        tokens = context.tokens
        places = len(tokens) - self.size + 1  # number of n-grams so far
        if places <= 0:
            return logits
        last = tokens[places:]  # the n - 1 tokens that the next token would complete
        repeats = np.ones(places, bool)
        for offset, token in enumerate(last):
            repeats &= tokens[offset : offset + places] == token
        banned = tokens[self.size - 1 :][repeats]
        return _forbid(logits, torch.from_numpy(banned)) if len(banned) else logits


class MinLength:
    """Forbids the end tokens until the context has `length` tokens."""

    name = "min_tokens or min_length"

    def __init__(self, length: int, end: frozenset[int]) -> None:
        self.length = length
        self.end = torch.tensor(sorted(end), dtype=torch.int64)

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        return _forbid(logits, self.end) if context.length < self.length else logits


class Suppress:
    """Forbids tokens everywhere or, with `at`, only at this context length."""

    def __init__(self, tokens: Sequence[int], at: int | None, name: str) -> None:
        self.name = name
        self.tokens = torch.tensor(tokens, dtype=torch.int64)
        self.at = at

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        is_here = self.at is None or context.length == self.at
        return _forbid(logits, self.tokens) if is_here else logits


class Forced:
    """Forces one of these tokens at context length `at`: mBART's language code at the start, or the
    end token at the length limit.
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
