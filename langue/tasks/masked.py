"""Masked language modelling (Devlin et al. 2018, arXiv:1810.04805): takes chunks of documents;
returns batches in which some tokens are masked and predicted from all others.

Of the selected tokens, 80 % become the mask token, 10 % a random token, and 10 % stay. They are
selected anew in every epoch (Liu et al. 2019, arXiv:1907.11692), token by token or by whole words,
and at least one in each chunk. A chunk is framed as [CLS] chunk [SEP], or as [CLS] first part [SEP]
second part [SEP] if the model also learns whether the second part follows the first.
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
RANDOM = 0.1  # fraction of the predicted tokens
DRAWN = 0
FATE = 1
WORD = 2  # the purposes of a token's random numbers


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
        self.mask = self.special.need("mask")
        self.cls = self.special.need("cls")
        self.sep = self.special.need("sep")
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
        drawn = self._selected(text, chunks, places, of, None if parts is None else parts.cut)
        fate = uniform(self.seed, FATE, chunks, places, of)
        word = (uniform(self.seed, WORD, chunks, places, of) * self.vocabulary).astype(np.int32)
        seen = np.where(drawn & (fate < MASKED), self.mask, text)
        seen = np.where(drawn & (fate >= MASKED) & (fate < MASKED + RANDOM), word, seen)
        made = self._with_special_tokens(seen, np.where(drawn, text, -1), chunks, parts)
        return gather(made, np.arange(len(chunks)), device)

    def _with_special_tokens(
        self,
        seen: NDArray[np.int32],
        labels: NDArray[np.int32],
        chunks: Chunks,
        parts: Parts | None,
    ) -> Examples:
        """Insert [CLS] before each chunk, [SEP] after it and, if it has two parts, [SEP] between
        them.
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
        """Return the summed pair loss.

        The total loss is divided by the number of predicted tokens, so each chunk's pair loss is
        weighted by its expected number of predicted tokens. This adds the token mean of the masked
        loss and a length-weighted mean over chunks of the pair loss, and both stay sums that are
        exact under any division of a batch.
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
        """Return which chunks have a pair label (P,), the pair logits (P, 2), and the labels
        (P,).
        """
        assert batch.targets is not None
        asked = (batch.targets != NOT_ASKED).nonzero().squeeze(1)
        first_tokens = batch.starts[:-1][asked]
        logits = model.head.next_sentence_logits(states[first_tokens])
        return asked, logits, batch.targets[asked]

    def _selected(
        self,
        text: NDArray[np.int32],
        chunks: Chunks,
        places: NDArray[np.int64],
        of: NDArray[np.int64],
        cut: NDArray[np.int64] | None,
    ) -> NDArray[np.bool_]:
        """Return the mask of the tokens to predict, at least one in every chunk.

        With whole words, the random number of a word's first token decides for all its tokens, and
        no word crosses a cut between parts.
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
