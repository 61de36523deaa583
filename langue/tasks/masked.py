"""Masked language modelling (Devlin et al. 2018, arXiv:1810.04805). What arrives: pieces of documents.
What leaves: batches in which some tokens are hidden and are to be predicted from all others.

Of the tokens drawn, 80 % become the mask, 10 % a random token and 10 % stay; they are drawn anew in every pass (Liu et
al. 2019, arXiv:1907.11692), a share of the tokens or of whole words. Each piece stands between [CLS] and [SEP].
"""

import numpy as np
import torch
from numpy.typing import NDArray

from langue.data.batch import Batch, gather
from langue.data.stream import Documents, Frame, Slices, places_of, uniform
from langue.settings import TaskSettings
from langue.tasks.language import LanguageObjective, examples
from langue.text.tokenizer import Tokenizer

MASKED, RANDOM = 0.8, 0.1  # of the tokens that are predicted
DRAWN, FATE, WORD = 0, 1, 2  # what a token's random numbers are for


class Masked(LanguageObjective):
    name = "masked"
    architecture = "encoder"
    frame = Frame(piece=2)

    def __init__(self, tokenizer: Tokenizer, settings: TaskSettings, *, z_loss: float = 0.0, seed: int = 0) -> None:
        super().__init__(tokenizer, settings, z_loss=z_loss, seed=seed)
        self.mask, self.cls, self.sep = (self.special.need(name) for name in ("mask", "cls", "sep"))
        self.continues = continuations(tokenizer) if settings.whole_words else None

    def make(self, corpus: Documents, slices: Slices, device: torch.device) -> Batch:
        text = corpus.tokens(slices.document, slices.begin, slices.length)
        places, of = places_of(slices)
        drawn = self._drawn(text, slices, places, of)
        fate = uniform(self.seed, FATE, slices, places, of)
        word = (uniform(self.seed, WORD, slices, places, of) * self.vocabulary).astype(np.int32)
        seen = np.where(drawn & (fate < MASKED), self.mask, text)
        seen = np.where(drawn & (fate >= MASKED) & (fate < MASKED + RANDOM), word, seen)
        # [CLS] goes before each piece's first token and [SEP] after its last.
        ends = np.cumsum(slices.length)
        where = np.stack([ends - slices.length, ends], axis=1).reshape(-1)
        frame = np.tile([self.cls, self.sep], len(slices))
        labels = np.insert(np.where(drawn, text, -1), where, -1)
        batch = examples(np.insert(seen, where, frame), slices.length + 2, labels)
        return gather(batch, np.arange(len(slices)), device)

    def _drawn(
        self, text: NDArray[np.int32], slices: Slices, places: NDArray[np.int64], of: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Which tokens are predicted; all of a word are drawn by the number of its first one."""
        drawn: NDArray[np.bool_] = uniform(self.seed, DRAWN, slices, places, of) < self.settings.mask_ratio
        if self.continues is None:
            return drawn
        begins = ~self.continues[text]
        begins[np.cumsum(slices.length) - slices.length] = True
        first = np.maximum.accumulate(np.where(begins, np.arange(len(text)), 0))
        whole: NDArray[np.bool_] = drawn[first]
        return whole


def continuations(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """(V,) whether each token goes on with the word of the one before it: ##ed; or, where spaces are marked, letters
    without the mark."""
    words = [tokenizer.token(index) for index in range(len(tokenizer))]
    if any(word.startswith("##") for word in words):
        return np.asarray([word.startswith("##") for word in words])
    marks = ("Ġ", "▁")
    return np.asarray([not word.startswith(marks) and word[:1].isalpha() for word in words])
