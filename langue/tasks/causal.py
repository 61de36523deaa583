"""Next-token prediction (Bengio et al. 2003; Radford et al. 2018). What arrives: chunks of
documents. What leaves: batches in which every token is to be predicted from those before it.

A document t1 ... tn is read as b t1 ... tn and predicted as t1 ... tn e: what begins it (b) makes
the first token something to predict too, and the end (e) is predicted as any other token. Where a
document is cut into blocks, a block's last token predicts the next block's first: no token of a
corpus goes without loss.
"""

import math

import numpy as np
import torch

from langue.data.batch import Batch, gather
from langue.data.corpus.stream import Chunks, Documents, SpecialTokenOverhead
from langue.settings.sections import Section
from langue.tasks.language import HeldOutSet, LanguageObjective, examples, perplexity
from langue.tasks.objective import Metrics
from langue.text.tokenizers.tokenizer import Tokenizer


class Causal(LanguageObjective):
    name = "causal"
    architecture = "decoder"
    preset = "langue"
    overhead = SpecialTokenOverhead(document=1)

    def __init__(
        self, tokenizer: Tokenizer, settings: Section, *, z_loss: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__(tokenizer, settings, z_loss=z_loss, seed=seed)
        self.begin = self.special.need("bos", "eos", "cls")
        self.end = self.special.need("eos", "sep", "bos")

    def make(self, corpus: Documents, chunks: Chunks, device: torch.device) -> Batch:
        """With b at place -1 of a document and e at its end, a chunk's tokens are one place before
        its labels.
        """
        sizes = corpus.lengths[chunks.document]
        first = np.maximum(chunks.begin - 1, 0)
        text = corpus.tokens(
            chunks.document, first, np.minimum(chunks.begin + chunks.length, sizes) - first
        )
        runs = chunks.length + 1
        starts = np.cumsum(runs) - runs
        of = np.repeat(np.arange(len(chunks)), runs)
        place = chunks.begin[of] - 1 + np.arange(len(of)) - starts[of]
        run = np.where(place < 0, self.begin, self.end)
        run[(place >= 0) & (place < sizes[of])] = text
        tokens = np.delete(run, starts + runs - 1)
        labels = np.delete(run, starts)
        return gather(examples(tokens, chunks.length, labels), np.arange(len(chunks)), device)

    def metrics(self, loss: float, dev: HeldOutSet, shares: dict[str, float]) -> Metrics:
        """bits_per_byte: what one byte of the text costs, which can be compared across tokenizers:
        a byte that an unknown token stands for costs eight bits more.
        """
        bits = loss / math.log(2) / dev.bytes_per_prediction + dev.lost_bits
        return {"perplexity": perplexity(loss), "bits_per_byte": bits}
