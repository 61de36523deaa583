"""Next-token prediction (Bengio et al. 2003; Radford et al. 2018): takes chunks of documents and
returns batches in which every token is predicted from the tokens before it.

A document t1 ... tn has the inputs b t1 ... tn and the labels t1 ... tn e. The begin token (b) lets
the first token be predicted too, and the end token (e) is predicted like any other. Where a
document is split into blocks, the last token of a block predicts the first token of the next, so
that every token of a corpus contributes to the loss.
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
        """Gather a batch in which each chunk's labels are its inputs shifted by one token.

        The begin token stands at position -1 of its document and the end token after the last one,
        so the inputs of a chunk start one position before its labels.
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
        """Return perplexity and bits per byte.

        bits_per_byte is the cost of one byte of text, and so comparable across tokenizers: a byte
        that is hidden in an unknown token costs eight more bits.
        """
        bits = loss / math.log(2) / dev.bytes_per_prediction + dev.lost_bits
        return {"perplexity": perplexity(loss), "bits_per_byte": bits}
