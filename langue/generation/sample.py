"""What arrives: a language model and prompts as token ids. What leaves: the tokens it goes on with,
one at a time.

Greedy (temperature 0), or drawn from softmax(logits / temperature) among the `top_k` likeliest (Fan
et al. 2018, arXiv:1805.04833) or the smallest set that holds `top_p` of the probability (Holtzman
et al. 2019, arXiv:1904.09751). Prompts stand in one flat batch without padding, and so do the keys
and values kept of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from langue.data.batch import Batch, Examples, gather, gather_pairs
from langue.errors import ModelError
from langue.generation.processors import LogitsProcessor, processors_of
from langue.hub.generation_config import DEFAULT_TOP_K, GenerationConfig
from langue.model.attention import LengthBuckets, PairedLengthBuckets
from langue.model.cache import Cache
from langue.model.language_model import LanguageModel

UNCONSTRAINED = GenerationConfig()
COLDEST = 1e-6  # temperature, but for 0: logits divided by less overflow float32


@dataclass(frozen=True)
class Sampling:
    max_tokens: int | None = 64  # new tokens; None: as many as the model's generation config says
    temperature: float = 0.0  # 0: always the likeliest token
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        drawn = self.temperature == 0 or COLDEST <= self.temperature < math.inf
        some = self.max_tokens is None or self.max_tokens >= 1
        filtered = self.top_k >= 0 and 0 < self.top_p <= 1
        if not some or not drawn or not filtered or not 0 <= self.seed < 2**63:
            raise ModelError(
                f"cannot sample with {self}",
                do=(
                    f"max_tokens >= 1, temperature 0 or from {COLDEST:g} on, top_k and seed >= 0,"
                    " top_p in (0, 1]"
                ),
            )


def sampling_of(
    config: GenerationConfig,
    max_tokens: int | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    seed: int,
) -> Sampling:
    """What the caller gives, and where that is None what the model's generation config says: greedy
    unless it has `do_sample`."""
    if temperature is None:
        temperature = config.temperature if config.do_sample else 0.0
    if top_k is None:
        default = DEFAULT_TOP_K if config.do_sample else 0
        top_k = default if config.top_k is None else config.top_k
    if top_p is None:
        top_p = 1.0 if config.top_p is None else config.top_p
    return Sampling(max_tokens, temperature, top_k, top_p, seed)


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """One token for each row of logits (N, V) -> (N,)."""
    highest, likeliest = logits.max(-1)
    _check_finite(highest)
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
        logits = logits.masked_fill(
            torch.zeros_like(beyond).scatter(-1, places, beyond), float("-inf")
        )
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
    config: GenerationConfig = UNCONSTRAINED,
) -> list[list[int]]:
    """The tokens after each prompt, without the one of `config.end` that ended it.

    For an encoder-decoder the prompts are the sources, and the target begins with `config.start`.
    """
    device = model.body.output_table.device
    if any(len(prompt) == 0 for prompt in prompts):
        raise ModelError("a prompt is empty", do="give at least one token")
    if not prompts:
        return []
    is_decoder = model.body.decoder is None
    contexts = [list(prompt) if is_decoder else [config.start] for prompt in prompts]
    limits = [sampling.max_tokens or config.new_tokens(len(context)) for context in contexts]
    if is_decoder:  # one that meets the end of the positions must not stop the others
        longest = model.body.config.longest
        full = [
            len(c) if len(c) + n > longest else 0 for c, n in zip(contexts, limits, strict=True)
        ]
        if len(set(full)) > 1:
            found: dict[int, list[int]] = {}
            for size in sorted(set(full)):
                some = [row for row, own in enumerate(full) if own == size]
                written = generate(model, [prompts[row] for row in some], sampling, config)
                found |= zip(some, written, strict=True)
            return [found[row] for row in range(len(prompts))]
    rows = np.arange(len(prompts))
    if is_decoder:
        batch = gather(examples_of(prompts), rows, device)
        encoder_states = None
        pairs = None
    else:
        both = gather_pairs(examples_of(prompts), examples_of(contexts), rows, device)
        batch = both.target
        pairs = both.groups
        encoder_states = model.body(*both.source.inputs)[both.order]
    made = _write(
        model,
        batch,
        encoder_states,
        pairs,
        sampling,
        config,
        [contexts[row] for row in batch.rows],
        [limits[row] for row in batch.rows],
    )
    out: list[list[int]] = [[]] * len(prompts)
    for row, tokens in zip(batch.rows, made, strict=True):
        out[row] = tokens
    return out


def _write(
    model: LanguageModel,
    batch: Batch,
    encoder_states: Tensor | None,
    pairs: PairedLengthBuckets | None,
    sampling: Sampling,
    config: GenerationConfig,
    contexts: list[list[int]],
    limits: list[int],
) -> list[list[int]]:
    """The loop: hidden states of the new tokens, logits of each sequence's last one, a choice,
    again.

    contexts and limits, in the batch's order: the tokens so far, which grow here, and how many more
    each sequence has room for.
    """
    longest_context = max(t for _, _, t in batch.groups)
    positions_end = model.body.config.longest
    cache = Cache(len(batch.groups), min(positions_end, longest_context + max(limits)))
    generator = torch.Generator().manual_seed(sampling.seed)
    processors = processors_of(config, limits)
    tokens = batch.tokens
    groups = batch.groups
    ends = batch.starts[1:] - 1
    written: list[list[int]] = [[] for _ in range(len(batch))]
    running = np.ones(len(batch), bool)
    for new in range(max(limits)):
        positions = cache.positions(groups, tokens.device)
        if pairs is None:
            hidden = model.body(tokens, positions, groups, cache=cache)
        else:
            hidden = model.body.decode(tokens, positions, groups, encoder_states, pairs, cache)
        logits = _processed(model.logits(hidden[ends]), processors, contexts, new)
        tokens = choose(logits, sampling, generator)
        for index, token in enumerate(tokens.tolist()):
            contexts[index].append(token)
            running[index] = running[index] and token not in config.end
            if running[index]:
                written[index].append(token)
                running[index] = len(written[index]) < limits[index]
        if not running.any() or max(cache.lengths) >= positions_end:
            break
        groups = _one_each(groups)
        ends = torch.arange(len(batch), device=tokens.device)
    return written


def _processed(
    logits: Tensor, processors: Sequence[LogitsProcessor], contexts: list[list[int]], new: int
) -> Tensor:
    """The logits (N, V) after all processors, in float32 where there is one."""
    if not processors:
        return logits
    _check_finite(logits.max(-1).values)
    logits = logits.to(torch.float32, copy=True)
    for processor in processors:
        logits = processor(logits, contexts, new)
    if not logits.max(-1).values.isfinite().all():
        what = "the model's generation config forbids every token"
        raise ModelError(what, do="take tokens out of its bad_words_ids or suppress_tokens")
    return logits


def _check_finite(highest: Tensor) -> None:
    """highest (N,): the highest logit of each sequence; it is NaN where any logit is."""
    if not highest.isfinite().all():
        raise ModelError(
            "the logits are NaN or Inf",
            do="its weights contain NaN or Inf: train it again with a lower train.lr",
        )


def _one_each(groups: LengthBuckets) -> LengthBuckets:
    """The same sequences with one token each."""
    counts = [n for _, n, _ in groups]
    return [(sum(counts[:index]), n, 1) for index, n in enumerate(counts)]
