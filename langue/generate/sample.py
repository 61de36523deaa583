"""What arrives: a language model and prompts as token ids. What leaves: the tokens it goes on with, one at a time.

Greedy (temperature 0), or drawn from softmax(logits / temperature) among the `top_k` likeliest (Fan et al. 2018,
arXiv:1805.04833) or the smallest set that holds `top_p` of the probability (Holtzman et al. 2019, arXiv:1904.09751).
Prompts stand in one flat batch without padding, and so do the keys and values kept of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from langue.data.batch import Batch, Examples, gather, gather_pairs
from langue.errors import ModelError
from langue.model.attention import Groups, PairGroups
from langue.model.cache import Cache
from langue.model.language import LanguageModel

COLDEST = 1e-6  # temperature, but for 0: logits divided by less are no numbers of float32


@dataclass(frozen=True)
class Sampling:
    max_tokens: int = 64
    temperature: float = 0.0  # 0: always the likeliest token
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        drawn = self.temperature == 0 or COLDEST <= self.temperature < math.inf
        if self.max_tokens < 1 or not drawn or self.top_k < 0 or not 0 < self.top_p <= 1 or not 0 <= self.seed < 2**63:
            raise ModelError(
                f"cannot sample with {self}",
                do=f"max_tokens >= 1, temperature 0 or from {COLDEST:g} on, top_k and seed >= 0, top_p in (0, 1]",
            )


@dataclass(frozen=True)
class Rules:
    """What a model's own config says of what it writes."""

    stop: frozenset[int]  # tokens that end a text
    first: int | None  # the token that a target's text begins with
    banned: tuple[int, ...]  # tokens that are never written


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """One token for each row of logits (N, V) -> (N,)."""
    highest, likeliest = logits.max(-1)
    if not highest.isfinite().all():  # nor is it where any is no number
        raise ModelError(
            "the model's scores are no numbers", do="its weights are spoilt: train it anew, at a lower rate"
        )
    if sampling.temperature == 0:
        return likeliest
    logits = logits.float() / sampling.temperature
    if sampling.top_k:
        least = logits.topk(min(sampling.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if sampling.top_p < 1:
        ordered, places = logits.sort(descending=True)
        probabilities = ordered.softmax(-1)
        # The token that crosses top_p stays; those after it go.
        beyond = probabilities.cumsum(-1) - probabilities >= sampling.top_p
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, places, beyond), float("-inf"))
    drawn = torch.multinomial(logits.softmax(-1).cpu(), 1, generator=generator)
    return drawn[:, 0].to(logits.device)


def examples_of(items: Sequence[Sequence[int]]) -> Examples:
    """Token ids as examples."""
    starts = np.concatenate([[0], np.cumsum([len(item) for item in items])]).astype(np.int64)
    tokens = np.concatenate([np.asarray(item, np.int32) for item in items])
    return Examples(tokens, starts, None, np.zeros(len(items), np.int32))


@torch.no_grad()
def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    stop: frozenset[int] = frozenset(),
    start: int = 0,
    first: int | None = None,
    banned: Sequence[int] = (),
) -> list[list[int]]:
    """The tokens after each prompt, without the one of `stop` that ended it; none of `banned`.

    For an encoder-decoder the prompts are the sources, and the target begins with the token `start`, followed by
    `first` where there is one.
    """
    device = model.body.output_table.device
    if not prompts or any(len(prompt) == 0 for prompt in prompts):
        raise ModelError("a prompt is empty", do="give at least one token")
    if model.body.decoder is None:  # one that meets the end of the positions must not stop the others
        limit = model.body.config.longest
        full = [len(prompt) if len(prompt) + sampling.max_tokens > limit else 0 for prompt in prompts]
        if len(set(full)) > 1:
            found: dict[int, list[int]] = {}
            for size in sorted(set(full)):
                some = [row for row, own in enumerate(full) if own == size]
                written = generate(model, [prompts[row] for row in some], sampling, stop=stop, banned=banned)
                found |= zip(some, written, strict=True)
            return [found[row] for row in range(len(prompts))]
    rows = np.arange(len(prompts))
    if model.body.decoder is None:
        batch, memory, pairs = gather(examples_of(prompts), rows, device), None, None
    else:
        both = gather_pairs(examples_of(prompts), examples_of([[start]] * len(prompts)), rows, device)
        batch, pairs = both.target, both.groups
        memory = model.body(*both.source.inputs)[both.order]
    rules = Rules(stop, None if pairs is None else first, tuple(banned))
    made = _write(model, batch, memory, pairs, sampling, rules)
    out: list[list[int]] = [[]] * len(prompts)
    for row, tokens in zip(batch.rows, made, strict=True):
        out[row] = tokens
    return out


def _write(
    model: LanguageModel,
    batch: Batch,
    memory: Tensor | None,
    pairs: PairGroups | None,
    sampling: Sampling,
    rules: Rules,
) -> list[list[int]]:
    """The loop: hidden states of the new tokens, logits of each sequence's last one, a choice, again."""
    longest = max(t for _, _, t in batch.groups)
    limit = model.body.config.longest
    cache = Cache(len(batch.groups), min(limit, longest + sampling.max_tokens))
    generator = torch.Generator().manual_seed(sampling.seed)
    tokens, groups, ends = batch.tokens, batch.groups, batch.starts[1:] - 1
    written: list[list[int]] = [[] for _ in range(len(batch))]
    running, banned = np.ones(len(batch), bool), torch.tensor(rules.banned, dtype=torch.long, device=tokens.device)
    for step in range(sampling.max_tokens):
        positions = cache.positions(groups, tokens.device)
        if pairs is None:
            hidden = model.body(tokens, positions, groups, cache=cache)
        else:
            hidden = model.body.decode(tokens, positions, groups, memory, pairs, cache)
        logits = model.logits(hidden[ends])
        logits[:, banned] = float("-inf")
        tokens = choose(logits, sampling, generator)
        if step == 0 and rules.first is not None:
            tokens = torch.full_like(tokens, rules.first)
        for index, token in enumerate(tokens.tolist()):
            running[index] = running[index] and token not in rules.stop
            if running[index]:
                written[index].append(token)
        if not running.any() or max(cache.lengths) >= limit:
            break
        groups, ends = _one_each(groups), torch.arange(len(batch), device=tokens.device)
    return written


def _one_each(groups: Groups) -> Groups:
    """The same sequences with one token each."""
    counts = [n for _, n, _ in groups]
    return [(sum(counts[:index]), n, 1) for index, n in enumerate(counts)]
