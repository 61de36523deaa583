"""Model FLOPs utilization (Chowdhery et al. 2022, arXiv:2204.02311, appendix B): takes the batches
of training and the hardware's peak; returns the fraction of the peak that the model uses.

Counts the matrix products that the tokens require, forward and backward, however they were
computed; recomputation does not count.
"""

from dataclasses import replace
from typing import Any

from langue.data.batch import Batch, Pairs
from langue.model.config import ModelConfig


class MFUMeter:
    def __init__(self, config: ModelConfig, peak: float) -> None:
        """peak: FLOP/s of one device in the precision of the run."""
        self.config = config
        self.peak = peak
        self.flops = 0.0

    def add(self, batch: Any, predicted: float) -> None:
        """Add a batch of this process with this number of predicted tokens."""
        self.flops += 3 * (body_flops(self.config, batch) + head_flops(self.config) * predicted)

    def share(self, seconds: float) -> float:
        """Return the fraction of the peak reached since the last call, `seconds` ago."""
        reached = self.flops / (seconds * self.peak)
        self.flops = 0.0
        return reached


def head_flops(config: ModelConfig) -> float:
    """Return the forward FLOPs of the output matrix for one predicted token."""
    return (
        2.0
        * (config.decoder_vocab_size or config.vocab_size)
        * (config.embedding_dim or config.dim)
    )


def body_flops(config: ModelConfig, batch: Batch | Pairs) -> float:
    """Return the forward FLOPs of the Transformer."""
    if isinstance(batch, Batch):
        return config.forward_flops(_lengths(batch))
    source = _lengths(batch.source)
    target = _lengths(batch.target)
    encoder = replace(config, decoder_layers=0)
    decoder = config.decoder()
    width = decoder.n_heads * decoder.head_dim
    # In cross-attention, queries and outputs are computed for target tokens, keys and values for
    # source tokens.
    across = 4 * config.dim * width * (sum(target) + sum(source))
    across += 4 * width * sum(n * a * b for _, _, n, a, b in batch.groups)
    return encoder.forward_flops(source) + decoder.forward_flops(target) + decoder.n_layers * across


def _lengths(batch: Batch) -> list[int]:
    lengths: list[int] = []
    for _, n, t in batch.groups:
        lengths += [t] * n
    return lengths
