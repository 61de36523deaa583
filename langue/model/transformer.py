"""What arrives: a flat run of tokens (T,), each with its position in its own sequence.
What leaves: hidden states (T, D)."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from langue.model.attention import LengthBuckets, PairedLengthBuckets
from langue.model.block import Block, Context
from langue.model.cache import Cache
from langue.model.config import ModelConfig
from langue.model.kernels.dropout import Dropout
from langue.model.kernels.linear import in_bf16
from langue.model.norm import make_norm
from langue.model.position import Rotary, make_bias, make_position

TILE = 32
FILLED = 256


class Transformer(nn.Module):
    """The Transformer of Vaswani et al. 2017 (arXiv:1706.03762), along the axes of `ModelConfig`.

    Itself an encoder, or a decoder where the config is causal; an encoder-decoder has a second one
    as its `decoder`, whose blocks also attend to the first one's output.
    """

    def __init__(self, config: ModelConfig, cross: bool = False) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        size = config.embedding_dim or config.dim
        # The decoder of a pair uses the encoder's embedding, unless it has a vocabulary of its own.
        own = not cross or config.decoder_vocab_size
        self.token = nn.Embedding(config.vocab_size, size) if own else None
        self.position = make_position(config, size)
        self.segment = nn.Embedding(config.n_segments, size) if config.n_segments else None
        self.embedding_norm = make_norm(config, size) if config.embedding_norm else None
        self.widen = nn.Linear(size, config.dim) if config.embedding_dim else None
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer, cross) for layer in range(config.n_layers))
        self.final_norm = make_norm(config) if config.has_final_norm else None
        rotary = config.position == "rotary"
        self.rotary = Rotary(config) if rotary else None
        self.local_rotary = (
            Rotary(config, local=True) if rotary and config.rotary_local_base else None
        )
        self.bias = make_bias(config)
        self.decoder: Transformer | None = None
        if config.decoder_layers:
            self.decoder = Transformer(config.decoder(), True)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        groups: LengthBuckets,
        segments: Tensor | None = None,
        *,
        encoder_states: Tensor | None = None,
        pairs: PairedLengthBuckets | None = None,
        cache: Cache | None = None,
        token: nn.Embedding | None = None,
        query_positions: Tensor | None = None,
    ) -> Tensor:
        """tokens, positions, segments (T,) int64; groups as in `self_attention`. Returns (T, D).

        query_positions (N,): where one token of each sequence stands: only their states are
        returned, (N, D), and the last block computes no others if it can. encoder_states (S, D) and
        pairs: what a decoder with cross-attention attends to, as in `ragged_attention`; token: its
        embedding where it has none of its own; cache: keys and values of the tokens before these.
        """
        count = tokens.shape[0]
        if cache is None and (extra := _to_fill(count, tokens.device)):
            tokens = F.pad(tokens, (0, extra))
            positions = F.pad(positions, (0, extra))
            segments = None if segments is None else F.pad(segments, (0, extra))
        x = self._embedded(tokens, positions, segments, token)
        rotation = None if self.rotary is None else self.rotary(positions, groups)
        local = rotation if self.local_rotary is None else self.local_rotary(positions, groups)
        longest = max((t for _, _, t in groups), default=0) + max(cache.lengths if cache else (0,))
        bias = None if self.bias is None else self.bias(longest)
        context = Context(groups, rotation, local, bias, encoder_states, pairs or [], cache)
        recompute = self.recompute and self.training
        last = cast(Block, self.blocks[-1])
        narrow = query_positions is not None and last.can_narrow(context, query_positions)
        for block in self.blocks:
            rows = query_positions if narrow and block is last else None
            x = self._recomputed(block, x, context, rows) if recompute else block(x, context, rows)
        if not narrow:
            x = x[query_positions] if query_positions is not None else x[:count]
        if cache is not None:
            cache.advance(groups)
        out: Tensor = x if self.final_norm is None else self.final_norm(x)
        return out

    @staticmethod
    def _recomputed(
        block: nn.Module, x: Tensor, context: Context, query_positions: Tensor | None
    ) -> Tensor:
        """What a block makes of x, of which only x is kept: the backward pass computes it again,
        with the same random numbers (Chen et al. 2016, arXiv:1604.06174)."""
        out: Tensor = checkpoint(block, x, context, query_positions, use_reentrant=False)
        return out

    def _embedded(
        self, tokens: Tensor, positions: Tensor, segments: Tensor | None, token: nn.Embedding | None
    ) -> Tensor:
        table = self.token if self.token is not None else token
        assert table is not None
        x: Tensor = table(tokens)
        # what the blocks add up is not rounded, only what they multiply
        if x.dtype == torch.bfloat16:
            x = x.float()
        if self.config.embedding_scale != 1.0:
            x = x * self.config.embedding_scale
        if self.position is not None:
            x = x + self.position(positions + self.config.position_offset)
        if self.segment is not None:
            # Without segments every token is of the first: one row, added to all.
            x = x + (self.segment.weight[0] if segments is None else self.segment(segments))
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        x = self.dropout(x)
        return x if self.widen is None else self.widen(x)

    def decode(
        self,
        tokens: Tensor,
        positions: Tensor,
        groups: LengthBuckets,
        encoder_states: Tensor | None,
        pairs: PairedLengthBuckets,
        cache: Cache | None = None,
    ) -> Tensor:
        """The decoder's hidden states (T, D), given the encoder's output in the order that `pairs`
        says."""
        assert self.decoder is not None
        out: Tensor = self.decoder(
            tokens,
            positions,
            groups,
            encoder_states=encoder_states,
            pairs=pairs,
            cache=cache,
            token=self.token,
        )
        return out

    @property
    def output_table(self) -> Tensor:
        """The embedding (V, E) of the side that writes, which a tied head shares."""
        table = (
            self.decoder.token
            if self.decoder is not None and self.decoder.token is not None
            else self.token
        )
        assert table is not None
        return table.weight


def _to_fill(rows: int, device: torch.device) -> int:
    """How many rows to compute beside those of a batch, in no sequence and read by nobody.

    Processors multiply bf16 in tiles, and PyTorch has oneDNN make code for each number of rows,
    which is another one in every batch and takes as long as the products, and a megabyte each. So
    there the last tile is filled: from `FILLED` rows on, to a multiple of `TILE` or a thirty-second
    of them, whichever is more."""
    return (
        -rows % max(TILE, 1 << (rows.bit_length() - 6)) if rows >= FILLED and in_bf16(device) else 0
    )


def initialise(module: nn.Module, std: float, seed: int) -> None:
    """Fresh weights: matrices and embeddings normal(0, std), biases zero, norms one (BERT, Devlin
    et al. 2018)."""
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
            if part.cross is not None:
                part.cross.dropout = attention


def set_recompute(model: nn.Module, query_positions: bool) -> None:
    """Whether training keeps what blocks compute, or computes it again in the backward pass."""
    for part in model.modules():
        if isinstance(part, Transformer):
            part.recompute = query_positions
