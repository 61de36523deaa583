"""Span denoising (T5, Raffel et al. 2019, arXiv:1910.10683, section 3.1.4): takes chunks of
documents; returns pairs of a source, in which sentinels replace spans of the text, and a target,
which lists each span after its sentinel.

    source  Thank you <X> me to your party <Y> week </s>
    target  <X> for inviting <Y> last </s>
"""

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from langue.data.batch import Pairs, gather_pairs
from langue.data.corpus.stream import Chunks, Documents, SpecialTokenOverhead
from langue.errors import ModelError, SettingsError
from langue.settings.sections import Section
from langue.tasks.language import LanguageObjective, examples
from langue.text.tokenizers.tokenizer import Tokenizer


class DenoiseOptions(Section):
    noise_ratio: float = Field(
        default=0.15, gt=0, lt=1, description="fraction of the tokens that denoising removes"
    )
    noise_span: float = Field(
        default=3.0, ge=1, description="mean length, in tokens, of the spans that denoising removes"
    )


class Denoise(LanguageObjective):
    name = "denoise"
    architecture = "encoder-decoder"
    preset = "t5-1.1-base"
    overhead = SpecialTokenOverhead()
    Options = DenoiseOptions
    tokenizer_defaults = {"tokenizer.kind": "unigram", "tokenizer.sentinels": 100}

    def __init__(
        self, tokenizer: Tokenizer, settings: DenoiseOptions, *, z_loss: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__(tokenizer, settings, z_loss=z_loss, seed=seed)
        self.start = self.special.need("pad", "bos")
        self.end = self.special.need("eos", "sep")
        if not self.special.sentinels:
            raise ModelError(
                "the tokenizer has no sentinels (<extra_id_0> ...)",
                do="train one with tokenizer.sentinels=100",
            )

    @classmethod
    def fits(cls, settings: DenoiseOptions, block: int, sentinels: int) -> None:
        count = _noise_counts(block, settings.noise_ratio, settings.noise_span)[1]
        if count > sentinels:
            raise SettingsError(
                f"a chunk of {block} tokens has {count} spans and the tokenizer {sentinels}"
                " sentinels",
                do=(
                    "shorten data.seq_len, raise task.noise_span, or train the tokenizer with more"
                    " tokenizer.sentinels"
                ),
            )

    def make(self, corpus: Documents, chunks: Chunks, device: torch.device) -> Pairs:
        text = corpus.tokens(chunks.document, chunks.begin, chunks.length)
        sources = []
        targets = []
        starts = np.cumsum(chunks.length) - chunks.length
        for row, begin in enumerate(starts):
            chunk = text[begin : begin + chunks.length[row]]
            key = [self.seed, chunks.epoch, int(chunks.document[row]), int(chunks.begin[row])]
            if chunks.repeat_index is not None and chunks.repeat_index[row]:
                key.append(int(chunks.repeat_index[row]))
            noise = noise_mask(
                len(chunk),
                self.settings.noise_ratio,
                self.settings.noise_span,
                np.random.Generator(np.random.PCG64(key)),
            )
            sources.append(self._replaced(chunk, noise))
            targets.append(self._replaced(chunk, ~noise, first=bool(noise[0])))
        labels = np.concatenate(targets)
        lengths = [len(target) for target in targets]
        inputs = np.roll(labels, 1)
        inputs[np.cumsum(lengths) - lengths] = self.start
        source = np.concatenate(sources)
        read = examples(source, [len(each) for each in sources], np.full(len(source), -1))
        return gather_pairs(read, examples(inputs, lengths, labels), np.arange(len(chunks)), device)

    def _replaced(
        self, chunk: NDArray[np.int32], hidden: NDArray[np.bool_], first: bool = False
    ) -> NDArray[np.int32]:
        """Replace each run of hidden tokens by one sentinel, numbered in order, and append the end
        token.

        first: the chunk starts with a visible span of sentinel 0, which no hidden run precedes.
        """
        begins = hidden & ~np.concatenate([[False], hidden[:-1]])
        number = np.cumsum(begins) - 1 + first
        out = np.where(begins, np.asarray(self.special.sentinels)[number], chunk)[begins | ~hidden]
        parts = ([self.special.sentinels[0]] if first else []), out, [self.end]
        return np.concatenate(parts).astype(np.int32)


def noise_mask(
    length: int, ratio: float, span: float, random: np.random.Generator
) -> NDArray[np.bool_]:
    """Draw the mask (length,) of the tokens to remove.

    The removed tokens are a fraction `ratio` of all, in runs of mean length `span`. Kept and
    removed runs alternate, and the first is a kept one; a chunk of one token is removed whole.
    """
    taken, runs = _noise_counts(length, ratio, span)
    kept = length - taken
    if not kept:
        return np.ones(length, bool)
    kept_lengths = _random_partition(kept, runs, random)
    taken_lengths = _random_partition(taken, runs, random)
    sizes = np.stack([kept_lengths, taken_lengths], axis=1).reshape(-1)  # (2 * runs,)
    is_taken = np.arange(2 * runs) % 2 == 1
    return np.repeat(is_taken, sizes)


def _noise_counts(length: int, ratio: float, span: float) -> tuple[int, int]:
    """Return the number of removed tokens and of runs; a longer chunk never has fewer runs."""
    taken = min(max(round(length * ratio), 1), max(1, length - 1))
    return taken, max(1, min(round(taken / span), taken, length - taken))


def _random_partition(total: int, parts: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw `total` as a sum of `parts` positive integers, uniformly over all such sums."""
    if parts == 1:
        return np.array([total], np.int64)
    cuts = np.sort(random.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]])).astype(np.int64)
