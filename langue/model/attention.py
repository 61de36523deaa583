"""Attention: takes queries, keys and values of flat batches of tokens, and the boundaries of the
sequences; returns for each token the weighted mean of the values of its own sequence (or of the
sequence that it attends to).

Scaled dot-product attention with several heads (Vaswani et al. 2017, arXiv:1706.03762, eq. 1):

    Attention(Q, K, V) = softmax(Q K^T / sqrt(K) + B) V

B may also depend on queries, keys and the distances between them (`distances.py`), and each row may
have an additional score, its head's sink, which has no key and no value (`with_sinks`).
`attention_reference`, first below, states the formula: slow and obvious. The rest computes the same
fast, and is tested against it. This is the only file that knows how ragged attention is computed.

There is no padding, and no mask except those of the formula itself (causal, window): a batch is
sorted by length, so that sequences of equal length are adjacent, and each such group (offset, n, t)
is one dense product over (n * H) matrices of t x t. `self_attention` is the packed path of
self-attention with as many keys as queries. `ragged_attention` handles everything else: fewer
key/value heads, cross-attention, other devices than CPUs, and inference on CPUs with matrix tiles
(AMX). `paged_attention` is used in generation: new tokens of sequences whose keys are in pages.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from langue.model.cache import PAGE, PagedKeys, Span, first_page_in_window, kernels_for, pages_for
from langue.model.kernels import drop, random_keep, scale, softmax, softmax_gradient, threshold
from langue.runtime import disable_cudnn_sdpa, has_amx_bf16

LengthBuckets = list[tuple[int, int, int]]  # (offset in tokens, number of sequences n, length t)
# (query offset, key offset, n, number of queries, number of keys)
PairedLengthBuckets = list[tuple[int, int, int, int, int]]


@dataclass(frozen=True)
class AttentionConfig:
    """How scores become attention weights, in one layer."""

    causal: bool = False  # token i attends to no j > i
    window: int = 0  # token i attends to j with |i - j| < window; 0: to all
    scale: float = 0.0  # 0: 1 / sqrt(K)
    cap: float = 0.0  # c tanh(score / c); 0: none

    def alpha(self, width: int) -> float:
        return self.scale or 1 / math.sqrt(width)


FULL_ATTENTION = AttentionConfig()


@dataclass(frozen=True)
class SpanBias:
    """The bias that is added to the scores of queries at some positions of a sequence."""

    # positions begin and end -> the bias of these queries, (H, end - begin, end)
    rows: Callable[[int, int], Tensor]
    slopes: Tensor | None = None  # (H,), if the bias is minus the slope times the distance


@dataclass(frozen=True)
class Distances:
    """The projections of a layer's relative distances (`distances.py`)."""

    keys: Tensor | None  # (2 S, H, K), matched with queries: content to position
    queries: Tensor | None  # (2 S, H, K), matched with keys: position to content


def attention_reference(
    qkv: Tensor | tuple[Tensor, Tensor, Tensor],
    starts: Tensor,
    key_starts: Tensor | None = None,
    config: AttentionConfig = FULL_ATTENTION,
    bias: Tensor | None = None,
    distances: Distances | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Compute the formula in float64, one sequence and one head at a time: slow and obvious.

    qkv (T, 3, H, K), or queries (T, H, K) with keys and values (S, G, K). starts (N + 1,): start of
    each sequence, then T. key_starts: the same for the sequences attended to. sinks (H,). Returns
    (T, H * K), float64.
    """
    parts = qkv.unbind(1) if isinstance(qkv, Tensor) else qkv
    all_queries, all_keys, all_values = (part.double() for part in parts)
    tokens, heads, width = all_queries.shape
    kv_heads = all_keys.shape[1]
    query_bounds = starts.tolist()
    key_bounds = query_bounds if key_starts is None else key_starts.tolist()

    out = torch.zeros(tokens, heads, width, dtype=torch.float64)
    for n in range(len(query_bounds) - 1):
        asking = slice(query_bounds[n], query_bounds[n + 1])
        asked = slice(key_bounds[n], key_bounds[n + 1])
        for head in range(heads):
            # each key/value head serves H / G consecutive query heads
            kv_head = head * kv_heads // heads
            q = all_queries[asking, head]  # (t, K)
            k = all_keys[asked, kv_head]  # (s, K)
            v = all_values[asked, kv_head]  # (s, K)

            scores = q @ k.T  # (t, s)
            if distances is not None:
                scores = scores + _with_distances(q, k, head, distances)
            scores = scores * config.alpha(width)
            if config.cap:
                scores = config.cap * torch.tanh(scores / config.cap)
            if bias is not None:
                scores = scores + bias[head, : len(q), : len(k)].double()
            distance = torch.arange(len(k))[None, :] - torch.arange(len(q))[:, None]
            if config.causal:
                scores = scores.masked_fill(distance > 0, -math.inf)
            if config.window:
                scores = scores.masked_fill(distance.abs() >= config.window, -math.inf)

            if sinks is not None:  # an additional score, which takes its share of each row
                sink = sinks[head].double().expand(len(q), 1)
                scores = torch.cat([scores, sink], dim=1)  # (t, s + 1)

            weights = torch.exp(scores - scores.max(dim=1, keepdim=True).values)
            weights = weights / weights.sum(dim=1, keepdim=True)  # rows sum to one
            out[asking, head] = weights[:, : len(k)] @ v  # (t, K)
    return out.view(tokens, heads * width)


def _with_distances(q: Tensor, k: Tensor, head: int, distances: Distances) -> Tensor:
    """Return the distance terms of one sequence and head, one pair of tokens at a time: q, k (t, K)
    -> (t, t).
    """
    keys = distances.keys
    queries = distances.queries
    scores = torch.zeros(len(q), len(k), dtype=torch.float64)
    for i in range(len(q)):
        for j in range(len(k)):
            if keys is not None:
                scores[i, j] += q[i] @ keys[len(keys) // 2 + i - j, head].double()
            if queries is not None:
                scores[i, j] += k[j] @ queries[len(queries) // 2 + i - j, head].double()
    return scores


# maximum number of attention weights in a chunk, several tensors of which are in use at a time
CHUNK_SCORES = 2**21


def attention_mask(
    config: AttentionConfig, queries: int, keys: int, device: torch.device
) -> Tensor | None:
    """Return the mask (queries, keys) of the pairs that must not attend, with the last query at the
    last key; None if there are none.
    """
    causal = config.causal and queries > 1
    windowed = 0 < config.window < keys
    if not causal and not windowed:
        return None
    places = torch.arange(keys, device=device)
    distance = places[None, :] - places[keys - queries :, None]
    hidden = distance > 0 if causal else torch.zeros_like(distance, dtype=torch.bool)
    return hidden | (distance.abs() >= config.window) if windowed else hidden


def additive_mask(
    config: AttentionConfig, bias: Tensor | None, queries: int, keys: int, like: Tensor
) -> Tensor | None:
    """Return what is added to the scores of the last queries: (queries, keys) or (H, queries,
    keys); None if nothing.

    bias: of all queries, or of only these.
    """
    hidden = attention_mask(config, queries, keys, like.device)
    if bias is None:
        part = None
    elif bias.shape[1] == queries:
        part = bias[:, :, :keys].to(like.dtype)
    else:
        part = bias[:, keys - queries : keys, :keys].to(like.dtype)
    if hidden is None:
        return part
    if part is None:
        part = torch.zeros(queries, keys, dtype=like.dtype, device=like.device)
    return part.masked_fill(hidden, float("-inf"))


def with_sinks(
    k: Tensor, v: Tensor, mask: Tensor | None, sinks: Tensor, queries: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Append attention sinks: a sink is a key and value of zeros, whose score gets its head's logit
    added.

    k, v (n, H, s, K); mask: None, (queries, s) or (H, queries, s); sinks (H,). Returns k, v and
    mask with one more key; the mask is (H, queries, s + 1).
    """
    heads, keys = k.shape[1:3]
    added = k.new_zeros(()) if mask is None else mask
    logits = sinks.to(added.dtype)[:, None, None].expand(heads, queries, 1)
    mask = torch.cat([added.expand(heads, queries, keys), logits], dim=-1)
    return F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1)), mask


def self_attention(
    qkv: Tensor,
    groups: LengthBuckets,
    dropout: float = 0.0,
    config: AttentionConfig = FULL_ATTENTION,
    bias: Tensor | None = None,
    distances: Distances | None = None,
) -> Tensor:
    """Self-attention within each sequence of a flat batch.

    qkv (T, 3, H, K): queries, keys and values. groups: runs of sequences of equal length, which
    cover the T tokens except possibly some at the end, whose rows become zero. dropout: probability
    of dropping an attention weight. bias (H, S, S): added to the scores, with the longest length S.
    A cap on the scores and sinks are only supported by `ragged_attention`. Returns (T, H * K).
    """
    tiled = qkv.dtype == torch.bfloat16 and not torch.is_grad_enabled() and has_amx_bf16()
    # uses kernels that never store the attention weights (Dao et al. 2022, arXiv:2205.14135)
    if qkv.device.type != "cpu" or tiled or distances is not None:
        q, k, v = qkv.unbind(1)
        return ragged_attention(
            q, k, v, [(o, o, n, t, t) for o, n, t in groups], dropout, config, bias, distances
        )
    # Inside, all products are in the dtype of qkv: autocast only applies to the forward pass, and
    # forward and backward must agree.
    with torch.autocast(qkv.device.type, enabled=False):
        return _Attention.apply(qkv, bias, groups, threshold(dropout), config)  # type: ignore[no-any-return, no-untyped-call]


def ragged_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    groups: PairedLengthBuckets,
    dropout: float = 0.0,
    config: AttentionConfig = FULL_ATTENTION,
    bias: Tensor | None = None,
    distances: Distances | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention of the tokens of one flat batch to those of another (or the same).

    q (T, H, K); k, v (S, G, K), where each of the G heads serves H / G consecutive query heads.
    groups: runs of pairs of equal lengths, consecutive on both sides, which cover the T tokens
    except possibly some at the end, which belong to no sequence and get zeros. sinks (H,). Returns
    (T, H * K).
    """
    heads, width = q.shape[1:]
    out = []
    asking = _parts(q, [n * tq for _, _, n, tq, _ in groups])
    asked = (_parts(x, [n * tk for _, _, n, _, tk in groups]) for x in (k, v))
    with torch.autocast(q.device.type, enabled=False):
        for (_, _, n, tq, tk), queries, keys, values in zip(groups, asking, *asked, strict=True):
            keys, values = (x.view(n, tk, -1, width) for x in (keys, values))
            asking_now = queries.view(n, tq, heads, width)
            mixed = dense_attention(
                asking_now, keys, values, dropout, config, bias, distances, sinks
            )
            out.append(mixed.reshape(n * tq, heads * width))
    mixed = torch.cat(out) if len(out) > 1 else out[0]
    return mixed if len(mixed) == len(q) else F.pad(mixed, (0, 0, 0, len(q) - len(mixed)))


def _parts(x: Tensor, sizes: list[int]) -> Sequence[Tensor]:
    """Split the rows of x into consecutive parts of these sizes. With slices, autograd would create
    a gradient of the size of x for each and add them up; with a split it creates one.
    """
    rest = len(x) - sum(sizes)
    if len(sizes) == 1 and not rest:  # no copy of the gradient is needed if one part is all of x
        return (x,)
    return torch.split(x, [*sizes, rest])[: len(sizes)]


def dense_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout: float = 0.0,
    config: AttentionConfig = FULL_ATTENTION,
    bias: Tensor | None = None,
    distances: Distances | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Dense attention of n equal pairs: q (n, t, H, K), k and v (n, s, G, K) -> (n, t, H, K).

    distances: only for full self-attention without a bias. sinks (H,): not together with distances.
    """
    if q.is_cuda:
        disable_cudnn_sdpa()
    queries = q.shape[1]
    keys = k.shape[1]
    alpha = config.alpha(q.shape[-1])
    q, k, v = (x.transpose(1, 2) for x in (q, k.to(q.dtype), v.to(q.dtype)))
    if k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    square = config.causal and queries == keys > 1 and bias is None and not 0 < config.window < keys
    square = square and sinks is None and not config.cap
    mask = None if square else additive_mask(config, bias, queries, keys, q)
    if sinks is not None:
        k, v, mask = with_sinks(k, v, mask, sinks, queries)
    if not config.cap:
        if distances is not None:
            from langue.model.distances import distance_scores

            mask = distance_scores(q, k, distances.keys, distances.queries) * alpha
        mixed = F.scaled_dot_product_attention(
            q, k, v, mask, dropout, is_causal=square, scale=alpha
        )
        return mixed.transpose(1, 2)
    products = config.cap * torch.tanh(q @ k.transpose(2, 3) * (alpha / config.cap))
    weights = torch.softmax(
        products if mask is None else products + mask, dim=-1, dtype=torch.float32
    ).to(q.dtype)
    return (F.dropout(weights, dropout, dropout > 0) @ v).transpose(1, 2)


def paged_attention(
    q: Tensor,
    keys: PagedKeys,
    layer: int,
    config: AttentionConfig = FULL_ATTENTION,
    bias: SpanBias | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention of a step's tokens, where each span attends to the keys of its own sequence in
    pages.

    q (T, H, K): span i has `new` rows from its offset on; in self-attention these are the last
    tokens of its sequence. Each sequence is computed on its own, without padded keys, so that its
    result does not depend on the others. sinks (H,). Returns (T, H * K).
    """
    kernels = kernels_for(keys.pages.data)
    usable = q.dtype == torch.float32 and (bias is None or bias.slopes is not None)
    if kernels is None or not usable or not keys.n_single:
        return _span_attention(q, keys, keys.spans, layer, config, bias, sinks)
    singles = q[keys.single_rows] if keys.longer else q.contiguous()
    mixed = kernels.attend(
        singles,
        keys.pages.data[layer],
        keys.tables,
        keys.lengths,
        config.scale,
        config.window,
        config.cap,
        None if bias is None else bias.slopes,
        None if sinks is None else sinks.detach().float(),
    )
    if not keys.longer:
        return mixed
    out = _span_attention(q, keys, keys.longer, layer, config, bias, sinks)
    out[keys.single_rows] = mixed
    return out


def _span_attention(
    q: Tensor,
    keys: PagedKeys,
    spans: Sequence[Span],
    layer: int,
    config: AttentionConfig,
    bias: SpanBias | None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Compute `paged_attention` for these spans, leaving other rows undefined: spans with equal
    numbers of tokens and keys form one dense product over stacked matrices.
    """
    heads, width = q.shape[1:]
    out = q.new_empty(len(q), heads * width)
    alike: dict[tuple[int, int], list[Span]] = {}
    for span in spans:
        alike.setdefault((span.new, span.keys), []).append(span)
    for (new, length), equal in alike.items():
        first = first_page_in_window(length - new, config.window)
        tables = np.stack([span.table[first : pages_for(length)] for span in equal])
        seen = length - first * PAGE
        k, v = keys.pages.read(layer, torch.from_numpy(tables).to(q.device), seen)
        parts = [q[span.offset : span.offset + new] for span in equal]
        added = None if bias is None else bias.rows(length - new, length)[:, :, -seen:]
        q_now = torch.stack(parts)  # (n, new, H, K)
        mixed = dense_attention(q_now, k, v, 0.0, config, added, sinks=sinks)  # (n, new, H, K)
        for span, part in zip(equal, mixed, strict=True):
            out[span.offset : span.offset + new] = part.reshape(new, heads * width)
    return out


def _heads(x: Tensor, group: tuple[int, int, int]) -> Tensor:
    """Return the part of x (T, C, H, K) that a group covers, as C stacks of matrices: (C, n * H, t,
    K).
    """
    offset, n, t = group
    _, parts, heads, width = x.shape
    part = x[offset : offset + n * t].view(n, t, parts, heads, width)
    return part.permute(2, 0, 3, 1, 4).reshape(parts, n * heads, t, width)


def _tokens(x: Tensor, n: int) -> Tensor:
    """Return matrices (n * H, t, K) as a view (n, t, H, K) in token order."""
    _, t, width = x.shape
    return x.view(n, -1, t, width).transpose(1, 2)


def _chunks(groups: LengthBuckets, heads: int) -> LengthBuckets:
    """Split the groups so that the intermediate results of a chunk stay in the caches from one
    operation to the next, and its memory is reused by the next chunk.
    """
    chunks: LengthBuckets = []
    for offset, n, t in groups:
        most = max(1, CHUNK_SCORES // (heads * t * t))
        chunks += [(offset + i * t, min(most, n - i), t) for i in range(0, n, most)]
    return chunks


def _end(groups: LengthBuckets) -> int:
    """Return the number of tokens that belong to sequences."""
    return max((offset + n * t for offset, n, t in groups), default=0)


def _squares(flat: Tensor | None, chunks: LengthBuckets, heads: int) -> Iterator[Tensor | None]:
    """Yield each chunk's part (n * H, t, t) of one tensor."""
    end = 0
    for _, n, t in chunks:
        begin = end
        end = end + n * heads * t * t
        yield None if flat is None else flat[begin:end].view(n * heads, t, t)


def _weights(q: Tensor, k: Tensor, n: int, alpha: float, added: Tensor | None) -> Tensor:
    """Return softmax(Q K^T / sqrt(K) + B) of stacked matrices (n * H, t, K) -> (n * H, t, t)."""
    if added is None:
        products = _product(q, k.transpose(1, 2), alpha)
    else:
        stacked = added.repeat(n, 1, 1) if added.ndim == 3 else added
        products = torch.baddbmm(stacked, q, k.transpose(1, 2), alpha=alpha)
    return softmax(products)


def _product(a: Tensor, b: Tensor, alpha: float, out: Tensor | None = None) -> Tensor:
    """Return alpha A B of stacked matrices."""
    return torch.baddbmm(
        a.new_empty(()) if out is None else out, a, b, beta=0, alpha=alpha, out=out
    )


class _Attention(torch.autograd.Function):
    """Forward and backward over all groups at once, so that autograd keeps one node for each layer
    instead of ten for each group.
    """

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        bias: Tensor | None,
        groups: LengthBuckets,
        dropped: int,
        config: AttentionConfig,
    ) -> Tensor:
        tokens, _, heads, width = qkv.shape
        chunks = _chunks(groups, heads)
        out = qkv.new_empty(tokens, heads, width)
        keep = (
            random_keep((sum(n * heads * t * t for _, n, t in groups),), dropped, qkv.device)
            if dropped
            else None
        )
        saved: list[Tensor] = []
        added = {t: additive_mask(config, bias, t, t, qkv) for _, _, t in groups}
        for chunk, kept in zip(chunks, _squares(keep, chunks, heads), strict=True):
            offset, n, t = chunk
            q, k, v = _heads(qkv, chunk)
            weights = _weights(q, k, n, config.alpha(width), added[t])
            saved.append(weights)
            mixed = _product(weights if kept is None else drop(weights, kept), v, scale(dropped))
            out[offset : offset + n * t].view(n, t, heads, width).copy_(_tokens(mixed, n))
        out[_end(chunks) :].zero_()
        ctx.save_for_backward(qkv, keep, *saved)
        ctx.chunks = chunks
        ctx.dropped = dropped
        ctx.config = config
        ctx.bias = (
            (bias.shape, bias.dtype) if bias is not None and ctx.needs_input_grad[1] else None
        )
        return out.view(tokens, heads * width)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        qkv, keep, *saved = ctx.saved_tensors
        tokens, _, heads, width = qkv.shape
        gradient = gradients[0].contiguous().view(tokens, 1, heads, width)
        grad_qkv = torch.empty_like(qkv)
        grad_bias = None if ctx.bias is None else qkv.new_zeros(ctx.bias[0], dtype=ctx.bias[1])
        grad_qkv[_end(ctx.chunks) :].zero_()
        alpha = ctx.config.alpha(width)
        rest = scale(ctx.dropped)
        for chunk, weights, kept in zip(
            ctx.chunks, saved, _squares(keep, ctx.chunks, heads), strict=True
        ):
            offset, n, t = chunk
            q, k, v = _heads(qkv, chunk)
            (grad_out,) = _heads(gradient, chunk)
            grads = q.new_empty(3, *q.shape)
            _product(
                (weights if kept is None else drop(weights, kept)).transpose(1, 2),
                grad_out,
                rest,
                out=grads[2],
            )
            grad_weights = _product(grad_out, v.transpose(1, 2), rest)
            if kept is not None:
                grad_weights = drop(grad_weights, kept)
            grad_scores = softmax_gradient(grad_weights, weights)
            if grad_bias is not None:
                grad_bias[:, :t, :t] += grad_scores.view(n, heads, t, t).sum(0)
            _product(grad_scores, k, alpha, out=grads[0])
            _product(grad_scores.transpose(1, 2), q, alpha, out=grads[1])
            part = grad_qkv[offset : offset + n * t].view(n, t, 3, heads, width)
            part.copy_(grads.view(3, n, heads, t, width).permute(1, 3, 0, 2, 4))
        return grad_qkv, grad_bias, None, None, None
