"""Next-token prediction (Bengio et al. 2003; Radford et al. 2018). What arrives: pieces of documents.
What leaves: batches in which every token is to be predicted from those before it.

A document t1 ... tn is read as b t1 ... tn and predicted as t1 ... tn e: what begins it (b) makes the first token
something to predict too, and the end (e) is predicted as any other token. Where a document is cut into blocks, a
block's last token predicts the next block's first: no token of a corpus goes without loss.
"""

import math

import numpy as np
import torch

from langue.data.batch import Batch, gather
from langue.data.corpus.stream import Documents, Frame, Slices
from langue.settings.sections import TaskSettings
from langue.tasks.language import Held, LanguageObjective, examples, perplexity
from langue.tasks.objective import Metrics
from langue.text.tokenizers.tokenizer import Tokenizer


class Causal(LanguageObjective):
    name = "causal"
    architecture = "decoder"
    frame = Frame(document=1)

    def __init__(self, tokenizer: Tokenizer, settings: TaskSettings, *, z_loss: float = 0.0, seed: int = 0) -> None:
        super().__init__(tokenizer, settings, z_loss=z_loss, seed=seed)
        self.begin = self.special.need("bos", "eos", "cls")
        self.end = self.special.need("eos", "sep", "bos")

    def make(self, corpus: Documents, slices: Slices, device: torch.device) -> Batch:
        """With b at place -1 of a document and e at its end, a piece's tokens are one place before its labels."""
        sizes = corpus.lengths[slices.document]
        first = np.maximum(slices.begin - 1, 0)
        text = corpus.tokens(slices.document, first, np.minimum(slices.begin + slices.length, sizes) - first)
        runs = slices.length + 1
        starts = np.cumsum(runs) - runs
        of = np.repeat(np.arange(len(slices)), runs)
        place = slices.begin[of] - 1 + np.arange(len(of)) - starts[of]
        run = np.where(place < 0, self.begin, self.end)
        run[(place >= 0) & (place < sizes[of])] = text
        tokens, labels = np.delete(run, starts + runs - 1), np.delete(run, starts)
        return gather(examples(tokens, slices.length, labels), np.arange(len(slices)), device)

    def metrics(self, loss: float, dev: Held, shares: dict[str, float]) -> Metrics:
        """bits_per_byte: what one byte of the text costs, which can be compared across tokenizers: a byte that an
        unknown token stands for costs eight bits more."""
        bits = loss / math.log(2) / dev.bytes_per_prediction + dev.lost_bits
        return {"perplexity": perplexity(loss), "bits_per_byte": bits}
