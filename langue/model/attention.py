"""What arrives: queries, keys and values of a flat run of tokens, and where equal-length sequences lie in it.
What leaves: each token's mixture of the values of its own sequence.

Scaled dot-product attention with several heads (Vaswani et al. 2017, arXiv:1706.03762, eq. 1):

    Attention(Q, K, V) = softmax(Q K^T / sqrt(K)) V

No padding and no mask: a batch keeps its sequences in order of length, so that sequences of equal length lie side by
side, and each such group (offset, n, t) is one dense product over (n * H) matrices of t x t. This is the only file
that knows how ragged attention is computed; `attention_reference` is the slow, obvious statement it is tested against.
"""

import math
from typing import Any

import torch
from torch import Tensor

from langue.model.dropout import random_keep, scale, threshold

Groups = list[tuple[int, int, int]]  # (offset in tokens, sequences n, tokens of each t)


def attention(qkv: Tensor, groups: Groups, dropout: float = 0.0) -> Tensor:
    """Self-attention within each sequence of a flat batch.

    qkv (T, 3, H, K): queries, keys and values; groups: runs of equal-length sequences that cover the T tokens;
    dropout: probability of dropping an attention weight. Returns (T, H * K).
    """
    # Inside, every product is in the dtype of qkv: autocast acts on the forward pass alone, and the two must agree.
    with torch.autocast(qkv.device.type, enabled=False):
        return _Attention.apply(qkv, groups, threshold(dropout))  # type: ignore[no-any-return, no-untyped-call]


def _heads(x: Tensor, group: tuple[int, int, int]) -> Tensor:
    """The part of x (T, C, H, K) that a group covers, as C stacks of matrices: (C, n * H, t, K)."""
    offset, n, t = group
    _, parts, heads, width = x.shape
    part = x[offset : offset + n * t].view(n, t, parts, heads, width)
    return part.permute(2, 0, 3, 1, 4).reshape(parts, n * heads, t, width)


def _tokens(x: Tensor, n: int) -> Tensor:
    """Matrices (n * H, t, K) back to a view (n, t, H, K) in token order."""
    _, t, width = x.shape
    return x.view(n, -1, t, width).transpose(1, 2)


def _weights(q: Tensor, k: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(K)) of stacked matrices (B, t, K) -> (B, t, t)."""
    scores = torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=1 / math.sqrt(q.shape[-1]))
    return torch.softmax(scores, dim=-1)


class _Attention(torch.autograd.Function):
    """Forward and backward over all groups at once, so that autograd keeps one node a layer and not ten a group."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, groups: Groups, dropped: int) -> Tensor:
        tokens, _, heads, width = qkv.shape
        out = qkv.new_empty(tokens, heads, width)
        saved: list[Tensor] = []
        for offset, n, t in groups:
            q, k, v = _heads(qkv, (offset, n, t))
            weights = _weights(q, k)
            if dropped:
                keep = random_keep(weights.shape, dropped, weights.device)
                mixed = torch.bmm(weights * keep, v).mul_(scale(dropped))
                saved += [weights, keep]
            else:
                mixed = torch.bmm(weights, v)
                saved += [weights]
            out[offset : offset + n * t].view(n, t, heads, width).copy_(_tokens(mixed, n))
        ctx.save_for_backward(qkv, *saved)
        ctx.groups, ctx.dropped = groups, dropped
        return out.view(tokens, heads * width)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        qkv, *saved = ctx.saved_tensors
        tokens, _, heads, width = qkv.shape
        gradient = gradients[0].contiguous().view(tokens, 1, heads, width)
        grad_qkv = torch.empty_like(qkv)
        alpha = 1 / math.sqrt(width)
        saved_iterator = iter(saved)
        for offset, n, t in ctx.groups:
            q, k, v = _heads(qkv, (offset, n, t))
            (grad_out,) = _heads(gradient, (offset, n, t))
            weights = kept = next(saved_iterator)
            if ctx.dropped:
                keep = next(saved_iterator)
                grad_out = grad_out * scale(ctx.dropped)  # here once, on (t, K), rather than on (t, t)
                kept = weights * keep
            grad_v = torch.bmm(kept.transpose(1, 2), grad_out)
            grad_weights = torch.bmm(grad_out, v.transpose(1, 2))
            if ctx.dropped:
                grad_weights.mul_(keep)
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            empty = q.new_empty(())
            grad_q = torch.baddbmm(empty, grad_scores, k, beta=0, alpha=alpha)
            grad_k = torch.baddbmm(empty, grad_scores.transpose(1, 2), q, beta=0, alpha=alpha)
            part = grad_qkv[offset : offset + n * t].view(n, t, 3, heads, width)
            for index, each in enumerate((grad_q, grad_k, grad_v)):
                part[:, :, index].copy_(_tokens(each, n))
        return grad_qkv, None, None


def attention_reference(qkv: Tensor, starts: Tensor) -> Tensor:
    """The formula above in float64, one sequence and one head at a time: slow and obvious.

    qkv (T, 3, H, K); starts (N + 1,): where each sequence begins, then T. Returns (T, H * K), float64.
    """
    tokens, _, heads, width = qkv.shape
    out = torch.zeros(tokens, heads, width, dtype=torch.float64)
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        for head in range(heads):
            q, k, v = (qkv[begin:end, part, head].double() for part in range(3))
            scores = q @ k.T / math.sqrt(width)
            weights = torch.exp(scores - scores.max(dim=1, keepdim=True).values)
            weights = weights / weights.sum(dim=1, keepdim=True)
            out[begin:end, head] = weights @ v
    return out.view(tokens, heads * width)
