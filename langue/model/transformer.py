"""The Transformer: takes a flat batch of tokens (T,), with the position of each in its own
sequence; returns hidden states (T, D).

A Transformer is an embedding and a stack of blocks; a block is attention and a feed-forward layer,
each with a residual connection and a norm.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from langue.model.attention import (
    AttentionConfig,
    Distances,
    LengthBuckets,
    PairedLengthBuckets,
    SpanBias,
    paged_attention,
    ragged_attention,
    self_attention,
)
from langue.model.cache import PagedKeys, Pages, kernels_for
from langue.model.config import ModelConfig
from langue.model.kernels import Dropout, Linear, in_bf16, rows_of
from langue.model.layers import Convolution, HeadNorm, make_feedforward, make_norm
from langue.model.position import (
    Alibi,
    DistanceStates,
    Rotary,
    Rotation,
    make_bias,
    make_distances,
    make_position,
    rotate,
)

TILE = 32
FILLED = 256


@dataclass(frozen=True)
class Step:
    """The locations of the keys that the tokens of a generation step attend to; their own keys are
    written there.
    """

    own: PagedKeys  # of self-attention
    encoder: PagedKeys | None = None  # of a decoder's cross-attention
    # (T,) length of each token's sequence, for positions that depend on it; None: the length up to
    # its last token in the step
    lengths: Tensor | None = None


@dataclass
class Context:
    """What all blocks of a stack share in one forward pass. Not frozen: the compiler would
    specialize on every field, and compile a block again for each batch's groups.
    """

    groups: LengthBuckets
    rotation: Rotation | None = None
    local_rotation: Rotation | None = None  # for layers with a window
    query_scale: Tensor | None = None  # (T,) factor of each token's queries
    bias: Tensor | None = None  # (H, S, S), added to the scores
    # (S, D): the encoder's output, in the order of the batch that attends to it
    encoder_states: Tensor | None = None
    # location of each sequence's part of the encoder's output
    pairs: PairedLengthBuckets = field(default_factory=list)
    step: Step | None = None
    span_bias: SpanBias | None = None  # `bias` for the spans of a step
    distances: DistanceStates | None = None  # for scores with distances
    positions: Tensor | None = None  # (T,), used by a convolution

    def with_bias(self, module: nn.Module | None) -> "Context":
        """Return the context with a module's bias on the scores; unchanged if there is none."""
        if module is None:
            return self
        if self.step is None:
            return replace(self, bias=module(max((t for _, _, t in self.groups), default=0)))

        @cache
        def rows(begin: int, end: int) -> Tensor:  # computed once for all layers
            return module(end, begin)  # type: ignore[no-any-return]

        slopes = cast(Tensor, module.slopes) if isinstance(module, Alibi) else None
        return replace(self, span_bias=SpanBias(rows, slopes))


class SelfAttention(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads = config.n_heads
        self.kv_heads = config.n_kv_heads
        self.width = config.head_dim
        self.dropout = config.attention_dropout
        self.scores = AttentionConfig(
            config.causal, config.window(layer), config.score_scale(layer), config.attention_cap
        )

        biased = config.has_bias("qkv")

        def into(heads: int, bias: bool = biased) -> Linear:
            return Linear(config.dim, heads * self.width, bias=bias)

        # Queries, keys and values of equal size are stacked, for a single product; otherwise they
        # stay separate, and a file's matrices are used as they are.
        self.stacked = config.stacks_qkv
        of_keys = biased and config.key_bias
        if self.stacked:
            self.qkv = into(3 * self.heads)
        else:
            self.q = into(self.heads)
            self.k = into(self.kv_heads, of_keys)
            self.v = into(self.kv_heads)
        self.out = Linear(self.heads * self.width, config.dim, bias=config.has_bias("out"))
        self.to_position = config.content_to_position
        self.from_position = config.position_to_content
        self.own_maps = not config.shared_position_maps
        own_keys = self.to_position and self.own_maps
        self.position_key = into(self.heads, of_keys) if own_keys else None
        self.position_query = into(self.heads) if self.from_position and self.own_maps else None
        self.position_dropout = Dropout(config.dropout) if config.is_disentangled else None
        self.joint = config.qk_norm_joint

        def norm(heads: int) -> nn.Module | None:
            if config.qk_norm_each:
                return HeadNorm(heads, self.width, config.norm_eps)
            size = heads * self.width if self.joint else self.width
            return make_norm(config, size) if config.qk_norm else None

        self.q_norm = norm(self.heads)
        self.k_norm = norm(self.kv_heads)
        self.sinks = nn.Parameter(torch.zeros(self.heads)) if config.attention_sinks else None
        self.rotated = layer not in config.unrotated
        self.packed = (
            self.stacked
            and config.position != "rotary"
            and not config.query_growth
            and not config.qk_norm
            and not config.attention_cap
            and not config.attention_sinks
        )

    def forward(self, x: Tensor, context: Context, query_positions: Tensor | None = None) -> Tensor:
        """Self-attention; query_positions (N,): as in `Block`, restricts the queries to these
        tokens.
        """
        parts: tuple[Tensor, ...]
        if self.packed and context.step is None and query_positions is None:
            parts = (self.qkv(x).view(x.shape[0], 3, self.heads, self.width),)  # (T, 3, H, K)
        else:
            parts = self._apply_rotary(
                *self._projected(x, query_positions), context, query_positions
            )
        out: Tensor = self.out(self.ragged(parts, context, self._distances(context.distances)))
        return out

    def _distances(self, states: DistanceStates | None) -> Distances | None:
        """Return this layer's keys and queries of distances."""
        if states is None or self.position_dropout is None:
            return None
        kept = self.position_dropout(states.states)  # (R, D)
        end = self.heads * self.width
        keys = queries = None
        if self.to_position:
            keys = self._mapped(self.position_key, kept, states.rows, end)
        if self.from_position:
            queries = self._mapped(self.position_query, kept, states.rows, 0)
        return Distances(keys, queries)

    def _mapped(self, own: nn.Module | None, states: Tensor, rows: Tensor, begin: int) -> Tensor:
        """Map the embeddings of distances (R, D) to (2 S, H, K), by a map of their own, or by the
        rows from `begin` on of the map of contents.
        """
        end = begin + self.heads * self.width
        out: Tensor = rows_of(self.qkv, states, begin, end) if own is None else own(states)
        return out.view(len(states), self.heads, self.width)[rows]

    def _projected(
        self, x: Tensor, query_positions: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (T, H, K), or (N, H, K) of the queried tokens, and keys and values (T, G,
        K) of all tokens.
        """
        asking = x if query_positions is None else x[query_positions]
        if not self.stacked:
            q = self.q(asking)
            k = self.k(x)
            v = self.v(x)
        elif query_positions is None:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
        else:
            end = self.heads * self.width
            q = rows_of(self.qkv, asking, 0, end)
            k, v = rows_of(self.qkv, x, end, 3 * end).chunk(2, dim=-1)
        return (
            q.view(q.shape[0], -1, self.width),
            k.view(k.shape[0], -1, self.width),
            v.view(v.shape[0], -1, self.width),
        )

    def ragged(
        self, parts: tuple[Tensor, ...], context: Context, distances: Distances | None = None
    ) -> Tensor:
        """The part that depends on the boundaries of sequences, which differ in every batch."""
        dropout = self.dropout if self.training else 0.0
        if len(parts) == 1:
            return self_attention(
                *parts, context.groups, dropout, self.scores, context.bias, distances
            )
        q, k, v = parts
        if context.step is not None:
            keys = context.step.own
            assert keys.slots is not None
            keys.pages.write(self.layer, k, v, keys.slots)
            return paged_attention(q, keys, self.layer, self.scores, context.span_bias, self.sinks)
        pairs = []
        asked = 0
        for offset, n, t in context.groups:
            # queries of a sequence: all its tokens, or the single queried one
            each = t if len(q) == len(k) else 1
            pairs.append((asked, offset, n, each, t))
            asked += n * each
        return ragged_attention(
            q, k, v, pairs, dropout, self.scores, context.bias, distances, self.sinks
        )

    def _apply_rotary(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        context: Context,
        query_positions: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (T or N, H, K), keys and values (T, G, K), normalized and rotated as the
        config says.
        """
        if self.q_norm is not None and self.k_norm is not None:
            q = self._normed(self.q_norm, q).to(v.dtype)
            k = self._normed(self.k_norm, k).to(v.dtype)
        rotation = context.local_rotation if self.scores.window else context.rotation
        if rotation is not None and self.rotated:
            asked = (
                rotation
                if query_positions is None
                else (rotation[0][query_positions], rotation[1][query_positions])
            )
            kernels = kernels_for(q) if context.step is not None else None
            if kernels is not None and q.dtype == k.dtype:
                q = q.contiguous()
                k = k.contiguous()
                kernels.rotate(q, *rotation)
                kernels.rotate(k, *rotation)
            else:
                q = rotate(q, asked)
                k = rotate(k, rotation)
        if context.query_scale is not None:
            scale = context.query_scale
            scale = scale if query_positions is None else scale[query_positions]
            q = (q * scale[:, None, None]).to(k.dtype)
        return q, k, v

    def _normed(self, norm: nn.Module, x: Tensor) -> Tensor:
        """Normalize x (T, H, K) for each head, or over all heads of a token."""
        if not self.joint:
            return norm(x)  # type: ignore[no-any-return]
        return norm(x.flatten(1)).view(x.shape)  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """Queries from the decoder's tokens, keys and values from the encoder's output (Vaswani et al.
    2017, section 3.2.3).
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.width = config.head_dim
        self.dropout = config.attention_dropout
        self.scores = AttentionConfig(scale=config.attention_scale)
        size = config.n_heads * config.head_dim
        bias = config.has_bias("qkv")
        self.q = Linear(config.dim, size, bias=bias)
        self.kv = Linear(config.dim, 2 * size, bias=bias)
        self.out = Linear(size, config.dim, bias=config.has_bias("out"))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        q = self.q(x).view(x.shape[0], -1, self.width)  # (T, H, K)
        out: Tensor = self.out(self.ragged(q, context))
        return out

    def ragged(self, q: Tensor, context: Context) -> Tensor:
        if context.step is not None:
            assert context.step.encoder is not None
            return paged_attention(q, context.step.encoder, self.layer, self.scores)
        assert context.encoder_states is not None
        k, v = self.keys_of(context.encoder_states)
        return ragged_attention(
            q, k, v, context.pairs, self.dropout if self.training else 0.0, self.scores
        )

    def keys_of(self, encoder_states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and values (S, H, K) of the encoder's output (S, D)."""
        both = self.kv(encoder_states).view(len(encoder_states), 2, -1, self.width)  # (S, 2, H, K)
        k, v = both.unbind(1)
        return k, v


class Block(nn.Module):
    """A block. post: x = norm(x + sublayer(x)), as originally published. pre: x = x +
    sublayer(norm(x)), Xiong et al. 2020, arXiv:2002.04745. after: x = x + norm(sublayer(x)), OLMo
    2, arXiv:2501.00656. both: x = x + norm(sublayer(norm(x))), Gemma 2. parallel: both sublayers
    have the same input.

    query_positions (N,): one token of each sequence; only its state is computed, from the keys and
    values of all tokens, and the result is (N, D). The last block of a stack needs no more if one
    token represents its text.
    """

    def __init__(self, config: ModelConfig, layer: int = 0, cross: bool = False) -> None:
        super().__init__()
        self.post = config.norm_place == "post"
        self.parallel = config.parallel
        self.shared_norm = config.shared_norm
        self.scale = config.residual_scale
        before = config.norm_place != "after"
        behind = config.norm_place in ("both", "after")
        first = before and (config.first_norm or layer > 0)
        self.attention = SelfAttention(config, layer)
        self.attention_norm = make_norm(config) if first else nn.Identity()
        self.attention_out_norm = make_norm(config) if behind else nn.Identity()
        self.cross = CrossAttention(config, layer) if cross else None
        self.cross_norm = make_norm(config) if cross else nn.Identity()
        self.bias = make_bias(config) if config.relative_bias_each else None
        self.feedforward = make_feedforward(config)
        own = before and not config.shared_norm
        self.feedforward_norm = make_norm(config) if own else nn.Identity()
        self.feedforward_out_norm = make_norm(config) if behind else nn.Identity()
        self.convolution = Convolution(config) if config.convolution and layer == 0 else None
        self.dropout = Dropout(config.dropout)

    def can_narrow(self, context: Context, query_positions: Tensor) -> bool:
        """Return whether the queried tokens can be computed alone: each is the last among its keys,
        or its position does not matter.
        """
        scores = self.attention.scores
        # a weight that is sharded over processes cannot be split by rows
        shared = hasattr(self.attention.out.weight, "to_local")
        alone = self.cross is None and self.convolution is None
        if shared or not alone or context.step is not None:
            return False
        if not scores.causal:
            free = context.bias is None and self.bias is None and context.distances is None
            return not scores.window and free
        last_tokens: list[int] = []
        for offset, n, t in context.groups:
            last_tokens += [offset + (i + 1) * t - 1 for i in range(n)]
        return query_positions.tolist() == last_tokens

    def forward(self, x: Tensor, context: Context, query_positions: Tensor | None = None) -> Tensor:
        def attention(y: Tensor) -> Tensor:
            return self.attention_out_norm(self.attention(y, context, query_positions))  # type: ignore[no-any-return]

        def feedforward(y: Tensor) -> Tensor:
            return self.feedforward_out_norm(self.feedforward(y))  # type: ignore[no-any-return]

        given = x
        kept = x if query_positions is None else x[query_positions]
        if self.parallel:
            normed = self.attention_norm(x)
            attended = self._added(attention(normed))
            if not self.shared_norm:
                normed = self.feedforward_norm(kept)
            elif query_positions is not None:
                normed = normed[query_positions]
            return kept + attended + self._added(feedforward(normed))
        x = self._residual(x, attention, self.attention_norm, kept)
        if self.cross is not None:
            cross = self.cross
            x = self._residual(x, lambda y: cross(y, context), self.cross_norm, x)
        x = self._residual(x, feedforward, self.feedforward_norm, x)
        return x if self.convolution is None else self.convolution(x, given, context.positions)

    def _residual(
        self, x: Tensor, sublayer: Callable[[Tensor], Tensor], norm: nn.Module, kept: Tensor
    ) -> Tensor:
        """Add a sublayer's output; kept: x, or the part of x that the output belongs to."""
        if self.post:
            return norm(kept + self._added(sublayer(x)))  # type: ignore[no-any-return]
        return kept + self._added(sublayer(norm(x)))

    def _added(self, out: Tensor) -> Tensor:
        """Return what a sublayer adds to the residual stream."""
        dropped: Tensor = self.dropout(out)
        return dropped if self.scale == 1.0 else dropped * self.scale


class Transformer(nn.Module):
    """The Transformer of Vaswani et al. 2017 (arXiv:1706.03762), along the axes of `ModelConfig`.

    It is an encoder, or a decoder if the config is causal; an encoder-decoder has a second one as
    its `decoder`, whose blocks also attend to the output of the first.
    """

    def __init__(self, config: ModelConfig, cross: bool = False) -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing = False
        size = config.embedding_dim or config.dim
        # The decoder of an encoder-decoder uses the encoder's embedding, unless it has its own
        # vocabulary.
        own = not cross or config.decoder_vocab_size
        self.token = nn.Embedding(config.vocab_size, size) if own else None
        # added to the token's vector, before or after it is widened
        inner = config.dim if config.position_widened else size
        self.position = make_position(config, inner)
        self.segment = nn.Embedding(config.n_segments, inner) if config.n_segments else None
        self.task = nn.Embedding(config.n_tasks, inner) if config.n_tasks else None
        self.embedding_norm = make_norm(config, inner) if config.embedding_norm else None
        self.widen = (
            nn.Linear(size, config.dim, bias=config.widen_bias) if config.embedding_dim else None
        )
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer, cross) for layer in range(config.n_blocks))
        self.final_norm = make_norm(config) if config.has_final_norm else None
        self.narrow = nn.Linear(config.dim, size, bias=False) if config.narrowed else None
        rotary = config.position == "rotary"
        self.rotary = Rotary(config) if rotary else None
        self.local_rotary = (
            Rotary(config, local=True) if rotary and config.rotary_local_base else None
        )
        self.bias = None if config.relative_bias_each else make_bias(config)
        self.distances = make_distances(config)
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
        step: Step | None = None,
        token: nn.Embedding | None = None,
        query_positions: Tensor | None = None,
    ) -> Tensor:
        """Return hidden states (T, D), or (T, E) if the config narrows them; tokens, positions,
        segments (T,) int64; groups as in `self_attention`.

        query_positions (N,): one token of each sequence; only their states are returned, (N, D),
        and the last block computes no others if it can. encoder_states (S, D) and pairs: input of a
        decoder's cross-attention, as in `ragged_attention`. token: the embedding of a decoder that
        has none. step: replaces groups, encoder_states and pairs, if the tokens continue others
        whose keys and values are in pages.
        """
        count = tokens.shape[0]
        if step is None and (extra := _to_fill(count, tokens.device)):
            tokens = F.pad(tokens, (0, extra))
            positions = F.pad(positions, (0, extra))
            segments = None if segments is None else F.pad(segments, (0, extra))
        x = self._embedded(tokens, positions, segments, token)
        lengths = None if step is None else step.lengths
        rotation = None if self.rotary is None else self.rotary(positions, groups, lengths)
        local = rotation
        if self.local_rotary is not None:
            local = self.local_rotary(positions, groups, lengths)
        context = Context(
            groups,
            rotation,
            local,
            self._query_scale(positions),
            encoder_states=encoder_states,
            pairs=pairs or [],
            step=step,
            positions=positions,
        ).with_bias(self.bias)
        if self.distances is not None:
            context.distances = self.distances(max((t for _, _, t in groups), default=0))
        checkpointing = self.activation_checkpointing and self.training
        last = cast(Block, self.blocks[-1])
        narrow = query_positions is not None and last.can_narrow(context, query_positions)
        for layer in range(self.config.n_layers):
            block = cast(Block, self.blocks[layer * len(self.blocks) // self.config.n_layers])
            rows = query_positions if narrow and layer == self.config.n_layers - 1 else None
            own = context.with_bias(block.bias)
            x = self._checkpointed(block, x, own, rows) if checkpointing else block(x, own, rows)
        if not narrow:
            x = x[query_positions] if query_positions is not None else x[:count]
        out: Tensor = x if self.final_norm is None else self.final_norm(x)
        return out if self.narrow is None else self.narrow(out)

    def _query_scale(self, positions: Tensor) -> Tensor | None:
        """Return the factor (T,) of queries at these positions (T,); None: there is none."""
        growth = self.config.query_growth
        if not growth:
            return None
        length = self.config.rotary_length or self.config.max_length
        return 1 + growth * torch.log1p((positions // length).float())

    @staticmethod
    def _checkpointed(
        block: nn.Module, x: Tensor, context: Context, query_positions: Tensor | None
    ) -> Tensor:
        """Run a block and keep only its input x: the backward pass recomputes the rest, with the
        same random numbers (Chen et al. 2016, arXiv:1604.06174).
        """
        out: Tensor = checkpoint(block, x, context, query_positions, use_reentrant=False)
        return out

    def _embedded(
        self, tokens: Tensor, positions: Tensor, segments: Tensor | None, token: nn.Embedding | None
    ) -> Tensor:
        table = self.token if self.token is not None else token
        assert table is not None
        x: Tensor = table(tokens)
        # the residual stream stays in fp32; only products are in bf16
        if x.dtype == torch.bfloat16:
            x = x.float()
        if self.config.embedding_scale != 1.0:
            x = x * self.config.embedding_scale
        widen = self.widen
        if self.config.position_widened and widen is not None:
            x = widen(x)
            widen = None
        if self.position is not None:
            x = x + self.position(positions + self.config.position_offset)
        if self.segment is not None:
            # Without segments every token belongs to the first: one row, added to all.
            x = x + (self.segment.weight[0] if segments is None else self.segment(segments))
        if self.task is not None:
            x = x + self.task.weight[0]
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        x = self.dropout(x)
        return x if widen is None else widen(x)

    def decode(
        self,
        tokens: Tensor,
        positions: Tensor,
        groups: LengthBuckets,
        encoder_states: Tensor | None = None,
        pairs: PairedLengthBuckets | None = None,
        *,
        step: Step | None = None,
        query_positions: Tensor | None = None,
    ) -> Tensor:
        """Return the decoder's hidden states (T, D), given the encoder's output in the order of
        `pairs`, or in pages.
        """
        assert self.decoder is not None
        out: Tensor = self.decoder(
            tokens,
            positions,
            groups,
            encoder_states=encoder_states,
            pairs=pairs,
            step=step,
            token=self.token,
            query_positions=query_positions,
        )
        return out

    def step_states(
        self, tokens: Tensor, positions: Tensor, step: Step, query_positions: Tensor
    ) -> Tensor:
        """Return the hidden states (N, D) of the queried tokens of a generation step, on the
        decoder side.
        """
        if self.decoder is not None:
            return self.decode(tokens, positions, [], step=step, query_positions=query_positions)
        out: Tensor = self(tokens, positions, [], step=step, query_positions=query_positions)
        return out

    def write_encoder_keys(self, encoder_states: Tensor, pages: Pages, slots: Tensor) -> None:
        """Write the cross-attention keys and values of the encoder's output (S, D) to pages; slots
        (S,).
        """
        assert self.decoder is not None
        for block in self.decoder.blocks:
            cross = cast(Block, block).cross
            assert cross is not None
            k, v = cross.keys_of(encoder_states)
            pages.write(cross.layer, k, v, slots)

    @property
    def output_table(self) -> Tensor:
        """The embedding (V, E) of the generating side, which a tied head shares."""
        table = (
            self.decoder.token
            if self.decoder is not None and self.decoder.token is not None
            else self.token
        )
        assert table is not None
        return table.weight


def _to_fill(rows: int, device: torch.device) -> int:
    """Return how many padding rows to add to a batch; they belong to no sequence, and nothing reads
    them.

    CPUs multiply bf16 in tiles, and for every number of rows PyTorch lets oneDNN generate code,
    which differs for every batch, takes as long as the products, and a megabyte each. So the last
    tile is filled: from `FILLED` rows on, to a multiple of `TILE` or of a thirty-second of the
    rows, whichever is more.
    """
    return (
        -rows % max(TILE, 1 << (rows.bit_length() - 6)) if rows >= FILLED and in_bf16(device) else 0
    )


class TrimmedEmbedding(nn.Module):
    """An embedding restricted to the rows `used` (R,), ascending: tokens (T,) -> (T, E)."""

    def __init__(self, table: nn.Embedding, used: Tensor) -> None:
        super().__init__()
        place = torch.full((table.num_embeddings,), -1)
        place[used] = torch.arange(len(used))
        self.register_buffer("place", place, persistent=False)
        self.weight = nn.Parameter(table.weight.detach()[used])

    def forward(self, tokens: Tensor) -> Tensor:
        assert isinstance(self.place, Tensor)
        return F.embedding(self.place[tokens], self.weight)


def initialise(module: nn.Module, std: float, seed: int) -> None:
    """Initialize weights: matrices and embeddings normal(0, std), biases zero, norms one (BERT,
    Devlin et al. 2018).
    """
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding, nn.Conv1d)):
            nn.init.normal_(part.weight, 0.0, std, generator=generator)
        if isinstance(part, (nn.Linear, nn.Conv1d)) and part.bias is not None:
            nn.init.zeros_(part.bias)


def set_dropout(model: nn.Module, hidden: float | None, attention: float | None) -> None:
    """Replace the dropout probabilities of a published config; None leaves them."""
    for part in model.modules():
        if hidden is not None and isinstance(part, Dropout):
            part.probability = hidden
        if attention is not None and isinstance(part, Block):
            part.attention.dropout = attention
            if part.cross is not None:
                part.cross.dropout = attention


def set_activation_checkpointing(model: nn.Module, enabled: bool) -> None:
    """Choose whether training keeps the activations inside of blocks, or recomputes them in the
    backward pass.
    """
    for part in model.modules():
        if isinstance(part, Transformer):
            part.activation_checkpointing = enabled
