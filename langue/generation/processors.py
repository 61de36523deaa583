"""What arrives: the logits of the next tokens (N, V) and the tokens so far of each sequence.
What leaves: the logits with what a model's generation config forbids, weakens or forces applied.

Each processor does what the one of the same name in `transformers` does to one sequence alone, in
the order in which `transformers` applies them. Contexts are a decoder's prompt, or an
encoder-decoder's start token, with the tokens that follow.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from langue.hub.generation_config import GenerationConfig

FORBIDDEN = float("-inf")
Contexts = Sequence[Sequence[int]]  # (N,) the tokens so far of each sequence


class LogitsProcessor(Protocol):
    def __call__(self, logits: Tensor, contexts: Contexts, new: int) -> Tensor:
        """logits (N, V), which may be changed in place; new: tokens written so far."""


class RepetitionPenalty:
    """Logits of tokens in the context are divided by the penalty, negative ones multiplied by it
    (Keskar et al. 2019, arXiv:1909.05858)."""

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty
        self.seen: Tensor | None = None  # (N, V) whether a token is in the context

    def __call__(self, logits: Tensor, contexts: Contexts, new: int) -> Tensor:
        if self.seen is None:
            self.seen = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
            for row, context in enumerate(contexts):
                self.seen[row, torch.tensor(context, device=logits.device)] = True
        else:
            last = torch.tensor([context[-1] for context in contexts], device=logits.device)
            self.seen.scatter_(1, last[:, None], True)
        weaker = torch.where(logits < 0, logits * self.penalty, logits / self.penalty)
        return torch.where(self.seen, weaker, logits)


class NoRepeatNgram:
    """No n tokens in a row come twice (Paulus et al. 2017, arXiv:1705.04304)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.followers: list[dict[tuple[int, ...], set[int]]] = []  # n - 1 tokens -> what followed

    def __call__(self, logits: Tensor, contexts: Contexts, new: int) -> Tensor:
        if not self.followers:
            self.followers = [{} for _ in contexts]
            begins = [0] * len(contexts)
        else:
            begins = [max(0, len(context) - self.size) for context in contexts]
        for row, context in enumerate(contexts):
            followers = self.followers[row]
            for begin in range(begins[row], len(context) - self.size + 1):
                *prefix, follower = context[begin : begin + self.size]
                followers.setdefault(tuple(prefix), set()).add(follower)
            if len(context) >= self.size:
                prefix = list(context[len(context) - self.size + 1 :])
                banned = followers.get(tuple(prefix), set())
                logits[row, list(banned)] = FORBIDDEN
        return logits


class BadWords:
    """The last token of a word is forbidden where the tokens before it have been written."""

    def __init__(self, words: Sequence[Sequence[int]], end: frozenset[int]) -> None:
        # As the reference has it, a token that ends a text cannot be forbidden as a word.
        self.single = [word[0] for word in words if len(word) == 1 and word[0] not in end]
        self.longer = [tuple(word) for word in words if len(word) > 1]

    def __call__(self, logits: Tensor, contexts: Contexts, new: int) -> Tensor:
        logits[:, self.single] = FORBIDDEN
        for row, context in enumerate(contexts):
            for *prefix, last in self.longer:
                if list(context[-len(prefix) :]) == prefix:
                    logits[row, last] = FORBIDDEN
        return logits


class MinLength:
    """No text ends before the context has `length` tokens, or `new` of them are new."""

    def __init__(self, length: int, new: int, end: frozenset[int]) -> None:
        self.length = length
        self.new = new
        self.end = sorted(end)

    def __call__(self, logits: Tensor, contexts: Contexts, new: int) -> Tensor:
        for row, context in enumerate(contexts):
            if len(context) < self.length or new < self.new:
                logits[row, self.end] = FORBIDDEN
        return logits


class Suppress:
    """Tokens that are never written."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = list(tokens)

    def __call__(self, logits: Tensor, contexts: Contexts, new: int) -> Tensor:
        logits[:, self.tokens] = FORBIDDEN
        return logits


class BeginSuppress:
    """Tokens that are not written first; where that is a forced token, not after it."""

    def __init__(self, tokens: Sequence[int], forced: bool) -> None:
        self.tokens = list(tokens)
        self.forced = forced

    def __call__(self, logits: Tensor, contexts: Contexts, new: int) -> Tensor:
        for row, context in enumerate(contexts):
            given = len(context) - new
            if new == (1 if self.forced and given == 1 else 0):
                logits[row, self.tokens] = FORBIDDEN
        return logits


class ForcedBos:
    """The token that follows a context of one token: mBART's language."""

    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, logits: Tensor, contexts: Contexts, new: int) -> Tensor:
        for row, context in enumerate(contexts):
            if len(context) == 1:
                logits[row] = FORBIDDEN
                logits[row, self.token] = 0
        return logits


class ForcedEos:
    """The last token that each sequence has room for ends it; limits: new tokens of each."""

    def __init__(self, tokens: Sequence[int], limits: Sequence[int]) -> None:
        self.tokens = list(tokens)
        self.limits = limits

    def __call__(self, logits: Tensor, contexts: Contexts, new: int) -> Tensor:
        for row, limit in enumerate(self.limits):
            if new == limit - 1:
                logits[row] = FORBIDDEN
                logits[row, self.tokens] = 0
        return logits


def processors_of(config: GenerationConfig, limits: Sequence[int]) -> list[LogitsProcessor]:
    """Those that a config asks for; limits: how many new tokens each sequence has room for."""
    found: list[LogitsProcessor] = []
    if config.repetition_penalty != 1.0:
        found.append(RepetitionPenalty(config.repetition_penalty))
    if config.no_repeat_ngram_size:
        found.append(NoRepeatNgram(config.no_repeat_ngram_size))
    if config.bad_words:
        found.append(BadWords(config.bad_words, config.end))
    if (config.min_length or config.min_new_tokens) and config.end:
        found.append(MinLength(config.min_length, config.min_new_tokens, config.end))
    if config.suppress:
        found.append(Suppress(config.suppress))
    if config.begin_suppress:
        found.append(BeginSuppress(config.begin_suppress, config.forced_bos is not None))
    if config.forced_bos is not None:  # last: what is forced is written though it were suppressed
        found.append(ForcedBos(config.forced_bos))
    if config.forced_eos:
        found.append(ForcedEos(config.forced_eos, limits))
    return found
