"""Masked language modelling (Devlin et al. 2018, arXiv:1810.04805). What arrives: chunks of
documents. What leaves: batches in which some tokens are hidden and are to be predicted from all
others.

Of the tokens drawn, 80 % become the mask, 10 % a random token and 10 % stay; they are drawn anew in
every pass (Liu et al. 2019, arXiv:1907.11692), a share of the tokens or of whole words, and of each
chunk at least one. Each chunk stands between [CLS] and [SEP], or as [CLS] first part [SEP] second
part [SEP] where the model also learns whether the second follows.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from langue.data.batch import Batch, Examples, gather
from langue.data.corpus.stream import Chunks, Documents, SpecialTokenOverhead, places_of, uniform
from langue.errors import SettingsError
from langue.model.language_model import LanguageModel
from langue.settings.sections import Section
from langue.tasks.language import LanguageObjective, examples
from langue.tasks.pairs import NOT_ASKED, Pairs, Parts
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.words import Words

MASKED = 0.8
RANDOM = 0.1  # of the tokens that are predicted
DRAWN = 0
FATE = 1
WORD = 2  # what a token's random numbers are for


class MaskedOptions(Section):
    mask_ratio: float = Field(
        default=0.15, gt=0, lt=1, description="masked LM: fraction of the tokens to predict"
    )
    whole_words: bool = Field(
        default=False, description="masked LM: mask all tokens of a word or none of them"
    )
    pairs: Literal["none", "next", "order"] = Field(
        default="none",
        description=(
            "masked LM: also predict whether the second part of a chunk follows the"
            " first (next), or which part comes first (order)"
        ),
    )


class Masked(LanguageObjective):
    name = "masked"
    architecture = "encoder"
    preset = "bert-base"
    overhead = SpecialTokenOverhead(chunk=2)
    Options = MaskedOptions
    tokenizer_defaults = {"tokenizer.kind": "wordpiece", "tokenizer.lower": True}

    def __init__(
        self, tokenizer: Tokenizer, settings: MaskedOptions, *, z_loss: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__(tokenizer, settings, z_loss=z_loss, seed=seed)
        self.mask, self.cls, self.sep = (self.special.need(name) for name in ("mask", "cls", "sep"))
        self.words = None
        if settings.whole_words:
            self.words = Words(tokenizer)
        self.pairs = Pairs(settings.pairs, seed) if settings.pairs != "none" else None
        self.overhead = self.overhead_for(settings)

    @classmethod
    def overhead_for(cls, settings: MaskedOptions) -> SpecialTokenOverhead:
        return SpecialTokenOverhead(chunk=2 if settings.pairs == "none" else 3)

    @classmethod
    def learns_pairs(cls, settings: MaskedOptions) -> bool:
        return settings.pairs != "none"

    @classmethod
    def check_documents(cls, settings: MaskedOptions, n_documents: int) -> None:
        if settings.pairs == "next" and n_documents < 2:
            raise SettingsError(
                "task.pairs=next takes second parts from other documents, and the text is a single"
                " one",
                do=(
                    "set task.pairs=order, or cut the text into documents: langue data tokenize"
                    " --document blank"
                ),
            )

    def make(self, corpus: Documents, chunks: Chunks, device: torch.device) -> Batch:
        text = corpus.tokens(chunks.document, chunks.begin, chunks.length)
        parts = self.pairs.parts(corpus, text, chunks) if self.pairs is not None else None
        text = text if parts is None else parts.text
        places, of = places_of(chunks)
        drawn = self._drawn(text, chunks, places, of, None if parts is None else parts.cut)
        fate = uniform(self.seed, FATE, chunks, places, of)
        word = (uniform(self.seed, WORD, chunks, places, of) * self.vocabulary).astype(np.int32)
        seen = np.where(drawn & (fate < MASKED), self.mask, text)
        seen = np.where(drawn & (fate >= MASKED) & (fate < MASKED + RANDOM), word, seen)
        made = self._framed(seen, np.where(drawn, text, -1), chunks, parts)
        return gather(made, np.arange(len(chunks)), device)

    def _framed(
        self,
        seen: NDArray[np.int32],
        labels: NDArray[np.int32],
        chunks: Chunks,
        parts: Parts | None,
    ) -> Examples:
        """[CLS] before each chunk's first token, [SEP] after its last, and after its first part
        where it has two.
        """
        ends = np.cumsum(chunks.length)
        begins = ends - chunks.length
        if parts is None:
            where = np.stack([begins, ends], axis=1)
            overhead = [self.cls, self.sep]
        else:
            seen = seen[parts.order]
            labels = labels[parts.order]
            where = np.stack([begins, begins + parts.first, ends], axis=1)
            overhead = [self.cls, self.sep, self.sep]
        spots = where.reshape(-1)
        lengths = chunks.length + len(overhead)
        made = examples(
            np.insert(seen, spots, np.tile(overhead, len(chunks))),
            lengths,
            np.insert(labels, spots, -1),
        )
        if parts is None:
            return made
        sizes = np.stack([parts.first + 2, lengths - parts.first - 2], axis=1).reshape(-1)
        segments = np.repeat(np.tile(np.asarray([0, 1], np.uint8), len(chunks)), sizes)
        return replace(made, segments=segments, targets=parts.label)

    def extra(self, model: LanguageModel, states: Tensor, batch: Batch) -> Tensor | None:
        """The pair loss. All is divided by the number of predicted tokens, so each chunk's counts
        as often as tokens of it are predicted on average: the mean over tokens of the masked loss
        and a mean over chunks of the pair loss, weighed by their length, are added, and both are
        sums that any division of a batch leaves exact.
        """
        if self.pairs is None:
            return None
        asked, logits, labels = self._follows(model, states, batch)
        weights = self.settings.mask_ratio * (batch.starts.diff()[asked] - self.overhead.chunk)
        losses = F.cross_entropy(logits.float(), labels, reduction="none")
        total: Tensor = (losses * weights).sum()
        return total

    def shares(
        self, model: LanguageModel, states: Tensor, batch: Batch
    ) -> dict[str, tuple[Tensor, Tensor]]:
        if self.pairs is None:
            return {}
        asked, logits, labels = self._follows(model, states, batch)
        return {"pair_accuracy": (asked, logits.argmax(-1) == labels)}

    def _follows(
        self, model: LanguageModel, states: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Which chunks are asked (P,), what the model says of them (P, 2), and what is so (P,)."""
        assert batch.targets is not None
        asked = (batch.targets != NOT_ASKED).nonzero().squeeze(1)
        return (
            asked,
            model.head.next_sentence_logits(states[batch.starts[:-1][asked]]),
            batch.targets[asked],
        )

    def _drawn(
        self,
        text: NDArray[np.int32],
        chunks: Chunks,
        places: NDArray[np.int64],
        of: NDArray[np.int64],
        cut: NDArray[np.int64] | None,
    ) -> NDArray[np.bool_]:
        """Which tokens are predicted, of every chunk at least one; all of a word are drawn by the
        number of its first one; none goes over a cut.
        """
        number = uniform(self.seed, DRAWN, chunks, places, of)
        first_tokens = np.cumsum(chunks.length) - chunks.length
        if self.words is not None:
            second = first_tokens[:0] if cut is None else (first_tokens + cut)[cut < chunks.length]
            begins = self.words.begin(text, np.concatenate([first_tokens, second]))
            number = number[np.maximum.accumulate(np.where(begins, np.arange(len(text)), 0))]
        lowest = np.repeat(np.minimum.reduceat(number, first_tokens), chunks.length)
        drawn: NDArray[np.bool_] = (number < self.settings.mask_ratio) | (number == lowest)
        return drawn
