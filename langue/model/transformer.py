"""What arrives: a flat run of tokens (T,), each with its position in its own sequence.
What leaves: hidden states (T, D)."""

import torch
from torch import Tensor, nn

from langue.model.attention import Groups
from langue.model.block import Block
from langue.model.config import ModelConfig
from langue.model.dropout import Dropout
from langue.model.norm import make_norm
from langue.model.position import make_position


class Transformer(nn.Module):
    """The encoder of Vaswani et al. 2017 (arXiv:1706.03762), along the axes of `ModelConfig`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.token = nn.Embedding(config.vocab_size, config.dim)
        self.position = make_position(config)
        self.segment = nn.Embedding(config.n_segments, config.dim) if config.n_segments else None
        self.embedding_norm = make_norm(config) if config.embedding_norm else None
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.final_norm = make_norm(config) if config.norm_place == "pre" else None

    def forward(self, tokens: Tensor, positions: Tensor, groups: Groups, segments: Tensor | None = None) -> Tensor:
        """tokens, positions, segments (T,) int64; groups as in `attention`. Returns (T, D)."""
        x = self.token(tokens)
        if self.position is not None:
            x = x + self.position(positions + self.config.position_offset)
        if self.segment is not None:
            # Without segments every token is of the first: one row, added to all.
            x = x + (self.segment.weight[0] if segments is None else self.segment(segments))
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, groups)
        out: Tensor = x if self.final_norm is None else self.final_norm(x)
        return out


def initialise(module: nn.Module, std: float, seed: int) -> None:
    """Fresh weights: matrices and embeddings normal(0, std), biases zero, norms one (BERT, Devlin et al. 2018)."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            nn.init.normal_(part.weight, 0.0, std, generator=generator)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


def set_dropout(model: nn.Module, hidden: float | None, attention: float | None) -> None:
    """Replace the dropout probabilities that came with a published config; None leaves them."""
    for part in model.modules():
        if hidden is not None and isinstance(part, Dropout):
            part.probability = hidden
        if attention is not None and isinstance(part, Block):
            part.attention.dropout = attention
