"""Likelihood scoring: takes contexts and continuations; returns log p(continuation | context), the
sum of its tokens' log-probabilities.

The tokenization is that of `lm-evaluation-harness`: context and continuation are tokenized
together, and the continuation gets the tokens after those of the context alone. Blanks at the end
of a context belong to the continuation. Without a context, a text follows the begin token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from langue.data.batch import Batch, examples_of, gather_pairs
from langue.data.encode import check_vocabulary, encode
from langue.data.pack import sorted_batches
from langue.errors import DataError, ModelError
from langue.hub.checkpoint import Checkpoint
from langue.model.config import ANY_LENGTH
from langue.model.language_model import LanguageModel
from langue.model.weight_linear import device_of
from langue.runs.inputs import Inputs, without_end
from langue.runs.shared_prefix import Group, can_share, groups_of, packed, states_of
from langue.runtime import parallel_map, world_size
from langue.tasks.language import token_losses
from langue.tasks.task import infer
from langue.text.read.parse import replace_lone_surrogates
from langue.text.tokenizers.special import special_ids

UNBOUNDED = 2048  # maximum number of tokens if neither config nor tokenizer has a limit
PAIR_TOKENS = 4096  # source and target tokens of a batch
CPU_TOKENS = 2048  # tokens of a batch of sequences with common prefixes
GPU_TOKENS = 16384
# indices of tokens, their losses, and whether each is the argmax
Found = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]


@dataclass(frozen=True)
class Continuation:
    """Token ids to score after a context."""

    context: list[int]
    tokens: list[int]


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihood of a continuation (natural logarithm), its number of tokens, and whether
    greedy decoding would generate it.
    """

    logprob: float
    tokens: int
    greedy: bool


@dataclass(frozen=True)
class Asked:
    """The inputs of the model, and the tokens to score at each of their positions."""

    inputs: list[list[int]]
    source: NDArray[np.int64]  # (R,) input of each request
    starts: NDArray[np.int64]  # (R + 1,) start of each request's tokens in the next two arrays
    places: NDArray[np.int64]  # (M,) position in its input whose state predicts the token
    labels: NDArray[np.int64]  # (M,) the tokens to score


class Likelihoods:
    """Scores continuations with a decoder, or targets given sources with an encoder-decoder."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        language: LanguageModel,
        inputs: Inputs,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """dtype: of the matrix products."""
        self.config = checkpoint.config
        if self.config.architecture == "encoder":
            raise ModelError(
                "an encoder sees both ways, and gives no probability to what follows a text",
                where=str(checkpoint.folder),
                do="take a decoder or an encoder-decoder; of an encoder, use fill_mask",
            )
        self.checkpoint = checkpoint
        self.tokenizer = checkpoint.tokenizer
        self.language = language
        self.inputs = inputs
        self.dtype = dtype
        self.device = device_of(language)
        self.is_decoder = self.config.architecture == "decoder"
        self.longest = self.config.max_length
        if self.longest >= ANY_LENGTH:
            self.longest = min(inputs.room.tokens, UNBOUNDED)
        self.n_cut = 0  # requests whose context was truncated
        self.tokens_cut = 0

    @cached_property
    def prefix(self) -> int:
        """The token that replaces an empty context: the begin token, else the end token."""
        special = special_ids(self.tokenizer)
        token = special.bos if special.bos is not None else special.eos
        if token is None:
            raise ModelError(
                "the tokenizer names no token that begins or ends a text, so nothing can be scored"
                " without a context",
                where=str(self.checkpoint.folder),
                do="give a context, or name bos_token in tokenizer_config.json",
            )
        return token

    # --- texts to tokens ---

    def encode_pairs(
        self, pairs: Sequence[tuple[str, str]], where: Sequence[str] = ()
    ) -> list[Continuation]:
        """Return the token ids of (context, continuation) texts; raise DataError if a continuation
        has no tokens.

        where: location of each pair, for the message.
        """
        parted = [_with_blanks_moved(*map(replace_lone_surrogates, pair)) for pair in pairs]
        if not self.is_decoder:
            return self._sources_and_targets(parted, where)
        contexts = list(dict.fromkeys(context for context, _ in parted if context))
        after_nothing = list(dict.fromkeys(text for context, text in parted if not context))
        wholes = list(dict.fromkeys(context + text for context, text in parted if context))
        ids_of_context = dict(zip(contexts, self.ids(contexts, count=False), strict=True))
        ids_of_whole = dict(zip(wholes, self.ids(wholes), strict=True))
        bare = dict(zip(after_nothing, self.ids(after_nothing, special=False), strict=True))
        made = []
        for row, (context, text) in enumerate(parted):
            if context:
                first = ids_of_context[context]
                made.append(Continuation(first, ids_of_whole[context + text][len(first) :]))
            elif bare[text] and bare[text][0] == self.prefix:
                made.append(Continuation(bare[text][:1], bare[text][1:]))
            else:
                made.append(Continuation([self.prefix], bare[text]))
            _check(made[-1], text, where[row] if where else f"continuation {row + 1}")
        return made

    def _sources_and_targets(
        self, pairs: Sequence[tuple[str, str]], where: Sequence[str]
    ) -> list[Continuation]:
        sources = list(dict.fromkeys(context for context, _ in pairs))
        targets = list(dict.fromkeys(text for _, text in pairs))
        found = self.inputs.examples(sources)
        parts = np.split(found.tokens, found.starts[1:-1])
        ids_of_source = dict(zip(sources, (part.tolist() for part in parts), strict=True))
        ids = self.ids(targets, special=False, target=True)
        ids_of_target = dict(zip(targets, ids, strict=True))
        made = []
        for row, (context, text) in enumerate(pairs):
            made.append(Continuation(ids_of_source[context], ids_of_target[text]))
            _check(made[-1], text, where[row] if where else f"continuation {row + 1}")
        return made

    def ids(
        self,
        texts: Sequence[str],
        *,
        special: bool = True,
        target: bool = False,
        count: bool = True,
    ) -> list[list[int]]:
        """Return token ids of texts of any length, without the tokens that end a text.

        special: with the tokens that begin a text, unless it already starts with them. count: count
        what the tokenizer does not know.
        """
        if not texts:
            return []
        tokenizer = self.tokenizer.target if target else self.tokenizer
        begin = self.tokenizer.roles.get("bos") if special else None
        begun = np.asarray([bool(begin) and text.startswith(str(begin)) for text in texts])
        made: list[list[int]] = [[]] * len(texts)
        for rows, framed in ((np.flatnonzero(~begun), special), (np.flatnonzero(begun), False)):
            if not len(rows):
                continue
            some = [texts[int(row)] for row in rows]
            examples = encode(tokenizer, some, max_length=2**31 - 1, special=framed)
            check_vocabulary(tokenizer, examples, self.config)
            if count and examples.lost is not None:
                self.inputs.count_unknown(examples.lost)
            if framed:
                examples = without_end(examples, self.tokenizer, self.checkpoint.ends)
            for row, part in zip(
                rows, np.split(examples.tokens, examples.starts[1:-1]), strict=True
            ):
                made[row] = part.tolist()
        return made

    def windows(self, text: str) -> list[Continuation]:
        """Return a whole text as windows without overlap, each with one token of context; the last
        window gets as much context as fits.
        """
        (tokens,) = self.ids([text])
        return rolling_windows(tokens, self.prefix, self.longest)

    # --- tokens to likelihoods ---

    @torch.no_grad()
    def score(self, requests: Sequence[Continuation]) -> list[Likelihood]:
        """Return the likelihood of each request; contexts that are too long are truncated at the
        start and counted.
        """
        if not requests:
            return []
        size = max(len(request.tokens) for request in requests)
        if size > self.longest:
            raise ModelError(
                f"a continuation of {size:,} tokens, and the model has room for {self.longest:,}",
                do="shorten it, or score it with output_type: loglikelihood_rolling",
            )
        asked = self._ask_decoder(requests) if self.is_decoder else self._ask_pairs(requests)
        losses = np.zeros(len(asked.labels))
        right = np.zeros(len(asked.labels), bool)
        batches = self._decoded(asked) if self.is_decoder else self._translated(asked, requests)
        for which, found, correct in batches:
            losses[which] = found
            right[which] = correct
        sums = np.add.reduceat(losses, asked.starts[:-1])
        greedy = np.logical_and.reduceat(right, asked.starts[:-1])
        return [
            Likelihood(-float(total), len(request.tokens), bool(all_right))
            for total, all_right, request in zip(sums, greedy, requests, strict=True)
        ]

    def _ask_decoder(self, requests: Sequence[Continuation]) -> Asked:
        """Return inputs without their last token; one that is a prefix of another needs no input of
        its own, since the model is causal.
        """
        inputs: list[list[int]] = []
        places: list[NDArray[np.int64]] = []
        for request in requests:
            whole = [*request.context, *request.tokens]
            cut = max(0, len(whole) - self.longest - 1)
            self.n_cut += cut > 0
            self.tokens_cut += cut
            inputs.append(whole[cut:-1])
            begin = len(request.context) - cut - 1
            places.append(np.arange(begin, begin + len(request.tokens)))
        return _asked(requests, *_without_prefixes(inputs), places)

    def _ask_pairs(self, requests: Sequence[Continuation]) -> Asked:
        """Return targets as decoder inputs: the start token, and all target tokens but the last."""
        start = self.tokenizer.decoder_start
        start = self.checkpoint.start if start is None else start
        inputs = [[start, *request.tokens[:-1]] for request in requests]
        places = [np.arange(len(request.tokens)) for request in requests]
        return _asked(requests, inputs, np.arange(len(requests)), places)

    def _decoded(self, asked: Asked) -> Iterator[Found]:
        """Yield the results of each batch, first those of inputs with common prefixes."""
        budget = max(self.longest, CPU_TOKENS if self.device.type == "cpu" else GPU_TOKENS)
        tokens_of = _tokens_by_input(asked)
        groups = groups_of(asked.inputs, budget) if can_share(self.config) else []
        together = {row for group in groups for row in group.rows}

        def shared(part: list[Group]) -> Found:
            rows = [row for group in part for row in group.rows]
            which = np.concatenate([tokens_of[row] for row in rows])
            places = {row: asked.places[tokens_of[row]] for row in rows}
            with torch.no_grad(), self._autocast():
                states = states_of(
                    self.language, part, asked.inputs, places, self.device, self.dtype
                )
                return which, *self._losses(states, asked, which)

        batches = packed(groups, asked.inputs, budget)
        in_parallel = self.device.type == "cpu" and world_size() == 1
        yield from parallel_map(shared, batches) if in_parallel else map(shared, batches)
        alone = np.asarray([row for row in range(len(asked.inputs)) if row not in together])

        def work(batch: Batch) -> Found:
            own = [tokens_of[row] for row in alone[batch.rows]]
            return self._of_batch(self.language.body(*batch.inputs), batch, own, asked)

        if len(alone):
            examples = examples_of([asked.inputs[row] for row in alone])
            for _, found in infer(work, examples, self.device, self.dtype):
                yield found

    def _translated(self, asked: Asked, requests: Sequence[Continuation]) -> Iterator[Found]:
        """Yield the results of each batch of an encoder-decoder; each source is encoded once per
        batch.
        """
        numbers: dict[tuple[int, ...], int] = {}
        source_of = np.asarray(
            [numbers.setdefault(tuple(each.context), len(numbers)) for each in requests]
        )
        sources = examples_of(list(numbers))
        targets = examples_of(asked.inputs)
        tokens_of = _tokens_by_input(asked)
        sizes = sources.lengths[source_of] + targets.lengths
        for rows in sorted_batches(sizes, max(PAIR_TOKENS, int(sizes.max()))):
            with self._autocast():
                pairs = gather_pairs(sources, targets, rows, self.device, source_of)
                batch = pairs.target
                encoder_states = self.language.body(*pairs.source.inputs)[pairs.order]
                states = self.language.body.decode(*batch.inputs[:3], encoder_states, pairs.groups)
                own = [tokens_of[row] for row in batch.rows]
                found = self._of_batch(states, batch, own, asked)
            yield found

    def _of_batch(
        self, states: torch.Tensor, batch: Batch, own: list[NDArray[np.int64]], asked: Asked
    ) -> Found:
        """Return the results of a batch from its states (T, D), and the tokens to score of each
        sequence.
        """
        which = np.concatenate(own)
        begins = np.repeat(batch.starts[:-1].cpu().numpy(), [len(each) for each in own])
        places = torch.from_numpy(begins + asked.places[which]).to(self.device)
        return which, *self._losses(states[places], asked, which)

    def _losses(
        self, states: torch.Tensor, asked: Asked, which: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the losses of the tokens `which`, and whether each is the argmax, from the states
        (M, D) that predict them.
        """
        labels = torch.from_numpy(asked.labels[which]).to(self.device)
        losses, right = token_losses(self.language, states, labels)
        return losses.cpu().numpy(), right.cpu().numpy()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


def _check(made: Continuation, text: str, where: str) -> None:
    if not made.tokens:
        raise DataError(
            f"{text!r} has no tokens of its own after its context",
            where=where,
            do="give a text that adds something",
        )
    if not made.context:
        raise DataError("the context has no tokens", where=where, do="fill it in")


def _with_blanks_moved(context: str, text: str) -> tuple[str, str]:
    """Move the blanks between context and continuation to the continuation."""
    bare = context.rstrip()
    return bare, context[len(bare) :] + text


def rolling_windows(tokens: Sequence[int], prefix: int, longest: int) -> list[Continuation]:
    """Split tokens into windows of at most `longest` tokens, each with the previous token as its
    context; the last, shorter one gets as much context as fits.
    """
    made = []
    for begin in range(0, len(tokens), longest):
        part = list(tokens[begin : begin + longest])
        before = tokens[begin + len(part) - longest - 1 : begin]
        context = list(before) if begin else [prefix]
        made.append(Continuation(context, part))
    return made


def _without_prefixes(inputs: list[list[int]]) -> tuple[list[list[int]], NDArray[np.int64]]:
    """Return the inputs that are no prefix of another, and for each input the one that it equals or
    is a prefix of.
    """
    keys = [np.asarray(each, ">i4").tobytes() for each in inputs]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    source = np.zeros(len(keys), np.int64)
    hosts: list[int] = []
    for at, row in reversed(list(enumerate(order))):
        after = order[at + 1] if at + 1 < len(order) else None
        if after is None or not keys[after].startswith(keys[row]):
            hosts.append(row)
        source[row] = len(hosts) - 1
    return [inputs[row] for row in hosts], source


def _asked(
    requests: Sequence[Continuation],
    inputs: list[list[int]],
    source: NDArray[np.int64],
    places: list[NDArray[np.int64]],
) -> Asked:
    counts = [len(request.tokens) for request in requests]
    return Asked(
        inputs,
        source,
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.concatenate(places).astype(np.int64),
        np.concatenate([np.asarray(request.tokens, np.int64) for request in requests]),
    )


def _tokens_by_input(asked: Asked) -> list[NDArray[np.int64]]:
    """Return, for each input, the tokens to score as indices into `asked.labels`."""
    of = np.repeat(asked.source, np.diff(asked.starts))  # (M,) input of each token
    order = np.argsort(of, kind="stable")
    ends = np.searchsorted(of[order], np.arange(1, len(asked.inputs)))
    return np.split(order, ends)
