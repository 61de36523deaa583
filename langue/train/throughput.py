"""What arrives: the batches of training, and the hardware's peak. What leaves: the share of it that
the model uses.

Model FLOPs utilisation (Chowdhery et al. 2022, arXiv:2204.02311, appendix B): the matrix products
that the tokens need, forward and backward, however they were computed; what is computed again does
not count.
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
        """A batch of this process, of which so many tokens were predicted."""
        self.flops += 3 * (body_flops(self.config, batch) + head_flops(self.config) * predicted)

    def share(self, seconds: float) -> float:
        """Of the peak, by what was added since the last call, `seconds` ago."""
        reached = self.flops / (seconds * self.peak)
        self.flops = 0.0
        return reached


def head_flops(config: ModelConfig) -> float:
    """Of the output matrix, for one predicted token."""
    return (
        2.0
        * (config.decoder_vocab_size or config.vocab_size)
        * (config.embedding_dim or config.dim)
    )


def body_flops(config: ModelConfig, batch: Batch | Pairs) -> float:
    """Of one forward pass of the Transformer."""
    if isinstance(batch, Batch):
        return config.forward_flops(_lengths(batch))
    source = _lengths(batch.source)
    target = _lengths(batch.target)
    encoder = replace(config, decoder_layers=0)
    decoder = config.decoder()
    width = decoder.n_heads * decoder.head_dim
    # Where the decoder attends to the encoder, queries and outputs are of its tokens, keys and
    # values of the other's.
    across = 4 * config.dim * width * (sum(target) + sum(source))
    across += 4 * width * sum(n * a * b for _, _, n, a, b in batch.groups)
    return encoder.forward_flops(source) + decoder.forward_flops(target) + decoder.n_layers * across


def _lengths(batch: Batch) -> list[int]:
    return [t for _, n, t in batch.groups for _ in range(n)]
