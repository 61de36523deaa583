"""Sampling: takes the logits of the next token of each sequence; returns the chosen tokens, with
log-probabilities if requested.

A token is chosen greedily (temperature 0), or sampled from softmax(logits / temperature) over the
tokens that the filters keep, such as top-k (Fan et al. 2018, arXiv:1805.04833) and top-p (Holtzman
et al. 2019, arXiv:1904.09751). Sequences share nothing: the random numbers of each are a function
of its own seed and position.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langue.errors import ModelError
from langue.generation import filters
from langue.generation.filters import Filter
from langue.generation.processors import (
    FORBIDDEN,
    Context,
    CountPenalty,
    Forced,
    LogitsProcessor,
    MinLength,
    NoRepeatNgram,
    RepetitionPenalty,
    SequenceBias,
    Suppress,
    bad_words,
)
from langue.hub.generation_config import DEFAULT_TOP_K, GenerationConfig

FORCED_BEGIN = "forced_bos_token_id"
FORCED_END = "forced_eos_token_id"
COLDEST = 1e-6  # smallest temperature above 0; dividing logits by less overflows float32
STRONGEST = 1e6  # largest penalties and biases; larger ones have no further effect, or overflow


@dataclass(frozen=True)
class Sampling:
    """How the tokens of a request are chosen, regardless of the model's generation config (which
    `sampling_of` reads).

    Raises ModelError for values that are not supported.
    """

    max_tokens: int | None = 64  # new tokens; None: as in the model's generation config
    temperature: float = 0.0  # 0: greedy
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    seed: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0  # on all tokens so far, including the prompt
    presence_penalty: float = 0.0  # on new tokens only, like the next one
    frequency_penalty: float = 0.0
    no_repeat_ngram: int = 0  # 0: no limit
    min_tokens: int = 0  # new tokens before the text may end
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    logprobs: int | None = None  # 0: of the chosen token; k: also of the k most probable ones

    def __post_init__(self) -> None:
        for name, (kind, is_good, wanted) in RANGES.items():
            value = getattr(self, name)
            if value is None and name in ("max_tokens", "logprobs"):
                continue
            if isinstance(value, bool) or not isinstance(value, kind) or not is_good(value):
                raise ModelError(f"{name} = {value!r} cannot be followed", do=f"give {wanted}")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            what = f"min_tokens = {self.min_tokens:,} is more than max_tokens = {self.max_tokens:,}"
            raise ModelError(what, do="lower min_tokens, or raise max_tokens")
        if not isinstance(self.logit_bias, Mapping):
            what = f"logit_bias is of the kind {type(self.logit_bias).__name__}"
            raise ModelError(what, do="give a mapping from token ids to numbers")
        for token, bias in self.logit_bias.items():
            is_token = isinstance(token, Integral) and not isinstance(token, bool)
            is_number = isinstance(bias, Real) and not isinstance(bias, bool)
            if not is_token or not is_number or not (abs(bias) <= STRONGEST or bias == FORBIDDEN):
                what = f"logit_bias has {token!r}: {bias!r}"
                do = "give token ids, each with a number that is added to its logit (-inf: never)"
                raise ModelError(what, do=do)


# The type, the range, and a description of the range, of each field.
RANGES: dict[str, tuple[type, Callable[[Any], bool], str]] = {
    "max_tokens": (Integral, lambda n: n >= 1, "a whole number from 1 on"),
    "temperature": (
        Real,
        lambda t: t == 0 or COLDEST <= t < math.inf,
        f"0, or a number from {COLDEST:g} on",
    ),
    "top_k": (Integral, lambda k: k >= 0, "a whole number from 0 (all) on"),
    "top_p": (Real, lambda p: 0 < p <= 1, "a number above 0, at most 1"),
    "seed": (Integral, lambda n: 0 <= n < 2**63, "a whole number from 0 to 2^63 - 1"),
    "min_p": (Real, lambda p: 0 <= p <= 1, "a number from 0 to 1"),
    "typical_p": (Real, lambda p: 0 < p <= 1, "a number above 0, at most 1"),
    "repetition_penalty": (
        Real,
        lambda x: 1 / STRONGEST <= x <= STRONGEST,
        f"a number from {1 / STRONGEST:g} to {STRONGEST:g}; 1 is none",
    ),
    "presence_penalty": (
        Real,
        lambda x: abs(x) <= STRONGEST,
        f"a number from {-STRONGEST:g} to {STRONGEST:g}; 0 is none",
    ),
    "frequency_penalty": (
        Real,
        lambda x: abs(x) <= STRONGEST,
        f"a number from {-STRONGEST:g} to {STRONGEST:g}; 0 is none",
    ),
    "no_repeat_ngram": (Integral, lambda n: n >= 0, "a whole number from 0 (none) on"),
    "min_tokens": (Integral, lambda n: n >= 0, "a whole number from 0 on"),
    "logprobs": (Integral, lambda n: n >= 0, "None, or how many of the likeliest, from 0 on"),
}


def sampling_of(
    config: GenerationConfig,
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    *,
    min_p: float | None = None,
    typical_p: float | None = None,
    repetition_penalty: float | None = None,
    presence_penalty: float | None = None,
    frequency_penalty: float | None = None,
    no_repeat_ngram: int | None = None,
    min_tokens: int | None = None,
    logit_bias: Mapping[int, float] | None = None,
    logprobs: int | None = None,
) -> Sampling:
    """Return the sampling settings that the caller gives, filled in from the model's generation
    config where they are None; greedy unless the config has `do_sample`.
    """
    if temperature is None:
        temperature = config.temperature if config.do_sample else 0.0
    if top_k is None:
        default = DEFAULT_TOP_K if config.do_sample else 0
        top_k = default if config.top_k is None else config.top_k
    if top_p is None:
        top_p = 1.0 if config.top_p is None else config.top_p
    if min_tokens is None:  # the caller may ask for less than the config's minimum
        most = config.min_new_tokens if max_tokens is None else max_tokens
        min_tokens = min(config.min_new_tokens, most)
    if repetition_penalty is None:
        repetition_penalty = config.repetition_penalty
    return Sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        min_p=config.min_p if min_p is None else min_p,
        typical_p=config.typical_p if typical_p is None else typical_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty or 0.0,
        frequency_penalty=frequency_penalty or 0.0,
        no_repeat_ngram=config.no_repeat_ngram_size if no_repeat_ngram is None else no_repeat_ngram,
        min_tokens=min_tokens,
        logit_bias=logit_bias or {},
        logprobs=logprobs,
    )


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen token; if requested, log-probabilities under the model's own distribution, at
    temperature 1 and before any processor.
    """

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()  # most probable tokens, best first


class Chooser:
    """Chooses the tokens of one sequence, independently of the rest of its batch.

    context: a decoder's prompt, or the first tokens of an encoder-decoder's target. limit: maximum
    number of tokens that may follow. vocabulary: V, the number of logits. sample: index among
    several answers to one request.

    Raises ModelError if a token of the context or of `logit_bias` is not in the vocabulary.
    """

    def __init__(
        self,
        sampling: Sampling,
        config: GenerationConfig,
        context: Sequence[int],
        limit: int,
        vocabulary: int,
        sample: int = 0,
    ) -> None:
        _check_tokens(context, vocabulary, "the prompt", "give ids of this model's tokenizer")
        _check_tokens(sampling.logit_bias, vocabulary, "logit_bias", "take it out")
        self.sampling = sampling
        self.sample = sample
        self.context = Context(context)
        self.processors = processors_of(sampling, config, len(context))
        self.forced = forced_of(config, len(context), limit)
        self.filters = filters_of(sampling, config) if sampling.temperature > 0 else []
        self.is_plain_greedy = (
            not self.processors
            and not self.forced
            and sampling.temperature == 0
            and sampling.logprobs is None
        )

    def fork(self, sample: int) -> "Chooser":
        """Return a copy of the sequence, which continues as another answer."""
        other = copy(self)
        other.context = self.context.copy()
        other.sample = sample
        return other

    def accept(self, token: int) -> None:
        """Append a generated token."""
        self.context.add(token)

    def undo(self, count: int) -> None:
        """Take back the last `count` accepted tokens, such as rejected tokens of a draft model."""
        self.context.undo(count)

    @property
    def begins_forced(self) -> bool:
        """Whether the model's config forces the next token to be its first one, which is no part of
        the text and so not subject to a constraint.
        """
        return any(f.name == FORCED_BEGIN and f.is_due(self.context) for f in self.forced)

    def process(self, logits: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Return the logits (V,) after all processors, in float32; forbidden tokens are -inf.

        allowed (V,): the tokens that a constraint permits. It does not apply to a forced first
        token, which is no part of the text; a forced end token must be allowed by it.

        Raises ModelError if no token is left.
        """
        logits = logits.float()
        for processor in self.processors:
            logits = processor(logits, self.context)
        due = [forced for forced in self.forced if forced.is_due(self.context)]
        if allowed is not None:
            allowed = allowed.to(logits.device)
            due = [f for f in due if f.name == FORCED_BEGIN or bool(allowed[f.tokens].any())]
            if not due:
                logits = torch.where(allowed, logits, FORBIDDEN)
        for forced in due:
            logits = forced(logits, self.context)
        if (self.processors or allowed is not None) and logits.amax() == FORBIDDEN:
            names = [processor.name for processor in self.processors]
            if allowed is not None:
                names.append("the form that is asked for")
            what = f"no token is left to write: {', '.join(names)} forbid every token"
            raise ModelError(what, do="leave one of them out, or weaken it")
        return logits

    def _weights(
        self, logits: Tensor, allowed: Tensor | None
    ) -> tuple[NDArray[np.int64] | None, NDArray[np.float32]]:
        """Return the tokens (C,) that may be sampled, None for all, and their weights (C,), of
        which the highest is 1.
        """
        found = self.process(logits, allowed).cpu().numpy()
        tokens = None
        if self.sampling.temperature == 0:
            return np.asarray([found.argmax()]), np.ones(1, np.float32)
        with np.errstate(over="ignore"):  # underflow: such a token has weight 0
            found = np.divide(
                found - found.max(), np.float32(self.sampling.temperature), dtype=np.float32
            )
        for keep in self.filters:
            left = np.flatnonzero(keep(found))
            found = found[left]
            tokens = left if tokens is None else tokens[left]
        return tokens, np.exp(found - found.max())

    def probabilities(self, logits: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Return the distribution that the next token is sampled from: (V,) float64 on the host,
        with sum 1.
        """
        tokens, weights = self._weights(logits, allowed)
        exact = torch.from_numpy(weights).double()
        exact /= exact.sum()
        if tokens is None:
            return exact
        return torch.zeros(len(logits), dtype=torch.float64).scatter(
            0, torch.from_numpy(tokens), exact
        )

    def uniform(self, which: int = 0) -> float:
        """Return a random number in [0, 1) for the next token: a function of seed, sample and
        number of new tokens alone.

        which: 0 for the sampled token, 1 to 3 for other uses. Philox (Salmon et al. 2011,
        doi:10.1145/2063384.2063405), as in NumPy.
        """
        key = np.asarray([self.sampling.seed, self.sample], np.uint64)
        new = self.context.length - self.context.given
        generator = np.random.Philox(key=key, counter=np.asarray([new, 0, 0, 0], np.uint64))
        return float(generator.random_raw(4)[which] >> np.uint64(11)) * 2.0**-53

    def choose(self, logits: Tensor, allowed: Tensor | None = None) -> Choice:
        """Choose the next token, without accepting it; logits (V,) of the model, allowed (V,).

        Raises ModelError if the logits are NaN or Inf, or every token is forbidden.
        """
        (choice,) = choose(logits[None], [self], [allowed])
        if isinstance(choice, ModelError):
            raise choice
        return choice

    def _choose(self, logits: Tensor, allowed: Tensor | None) -> Choice:
        """Choose like `choose`, given that the highest logit is finite."""
        tokens, weights = self._weights(logits, allowed)
        place = draw(weights, self.uniform()) if len(weights) > 1 else 0
        token = place if tokens is None else int(tokens[place])
        if self.sampling.logprobs is None:
            return Choice(token)
        raw = logits.float().log_softmax(-1)
        top = raw.topk(min(self.sampling.logprobs, len(raw)))
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return Choice(token, float(raw[token]), tuple(pairs))


def draw(weights: NDArray[np.floating[Any]], uniform: float) -> int:
    """Sample an index from weights (C,), which need not sum to 1, by the inverse of their
    cumulative distribution, in float64.
    """
    so_far = filters.running_sum(weights)
    total = so_far[-1]
    last = int(np.searchsorted(so_far, total))  # the weights after it are 0
    return min(int(np.searchsorted(so_far, uniform * total, "right")), last)


def choose(
    logits: Tensor, choosers: Sequence[Chooser], allowed: Sequence[Tensor | None]
) -> list[Choice | ModelError]:
    """Choose one token for each row of logits (N, V), without accepting it; a row without a choice
    gets an error, and does not affect the others.

    allowed: for each row the mask (V,) of the permitted tokens, or None.
    """
    highest, likeliest = _argmax(logits)
    made: list[Choice | ModelError] = []
    for row, chooser in enumerate(choosers):
        if not math.isfinite(highest[row]):
            what = "the logits are NaN or Inf"
            do = "its weights contain NaN or Inf: train it again with a lower train.lr"
            made.append(ModelError(what, do=do))
        elif chooser.is_plain_greedy and allowed[row] is None:
            made.append(Choice(likeliest[row]))
        else:
            try:
                made.append(chooser._choose(logits[row], allowed[row]))
            except ModelError as error:
                made.append(error)
    return made


def _argmax(logits: Tensor) -> tuple[list[float], list[int]]:
    """Return the highest logit of each row, NaN if any is, and its index, the first of ties."""
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        rows = logits.numpy()  # takes a tenth of the time of `Tensor.max`
        places = rows.argmax(-1)
        return rows[np.arange(len(rows)), places].tolist(), places.tolist()
    found = logits.max(-1)
    return found.values.tolist(), found.indices.tolist()


def processors_of(
    sampling: Sampling, config: GenerationConfig, given: int
) -> list[LogitsProcessor]:
    """Return the processors that have an effect, in the order of `transformers`.

    given: number of context tokens.
    """
    found: list[LogitsProcessor] = []
    biases = dict(config.sequence_bias)
    biases |= {(int(token),): float(bias) for token, bias in sampling.logit_bias.items()}
    if biases:
        found.append(SequenceBias(biases, "logit_bias and sequence_bias"))
    if sampling.repetition_penalty != 1.0:
        found.append(RepetitionPenalty(sampling.repetition_penalty))
    if sampling.presence_penalty or sampling.frequency_penalty:
        found.append(CountPenalty(sampling.presence_penalty, sampling.frequency_penalty))
    if sampling.no_repeat_ngram:
        found.append(NoRepeatNgram(sampling.no_repeat_ngram))
    words = bad_words(config.bad_words, config.end)
    if words is not None:
        found.append(words)
    least = max(config.min_length, given + sampling.min_tokens)
    if least > given and config.end:
        found.append(MinLength(least, config.end))
    if config.suppress:
        found.append(Suppress(config.suppress, None, "suppress_tokens"))
    if config.begin_suppress:  # at the position after a forced first token, if there is one
        at = given + (config.forced_bos is not None and given == 1)
        found.append(Suppress(config.begin_suppress, at, "begin_suppress_tokens"))
    return found


def forced_of(config: GenerationConfig, given: int, limit: int) -> list[Forced]:
    """Return the forced first and last tokens of the config.

    given: number of context tokens. limit: maximum number of tokens after them.
    """
    found = []
    if config.forced_bos is not None and given == 1:
        found.append(Forced([config.forced_bos], 1, FORCED_BEGIN))
    if config.forced_eos:
        found.append(Forced(config.forced_eos, given + limit - 1, FORCED_END))
    return found


def filters_of(sampling: Sampling, config: GenerationConfig) -> list[Filter]:
    """Return the filters that have an effect, in the order of `transformers`."""
    asked: list[tuple[bool, Filter]] = [
        (sampling.top_k > 0, partial(filters.top_k, k=sampling.top_k)),
        (sampling.top_p < 1, partial(filters.top_p, p=sampling.top_p)),
        (sampling.min_p > 0, partial(filters.min_p, share=sampling.min_p)),
        (sampling.typical_p < 1, partial(filters.typical_p, mass=sampling.typical_p)),
        (config.epsilon_cutoff > 0, partial(filters.epsilon_cutoff, epsilon=config.epsilon_cutoff)),
        (config.eta_cutoff > 0, partial(filters.eta_cutoff, epsilon=config.eta_cutoff)),
    ]
    return [keep for is_asked, keep in asked if is_asked]


def _check_tokens(tokens: Collection[int], vocabulary: int, where: str, do: str) -> None:
    for token in (min(tokens), max(tokens)) if tokens else ():
        if not 0 <= token < vocabulary:
            what = f"the token {token:,} is not of the model, whose vocabulary has {vocabulary:,}"
            raise ModelError(what, where=where, do=do)
