"""Every axis of attention (causal, window, bias, scale, cap, key/value heads, other sequences)
against float64."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from langue.data.batch import Examples, gather, gather_pairs
from langue.model.attention import (
    AttentionConfig,
    Distances,
    attention_reference,
    dense_attention,
    ragged_attention,
    self_attention,
)
from langue.model.cache import PAGE, PagedKeys, Pages, Span, pages_for
from langue.model.config import ModelConfig
from langue.model.heads import pool_mean
from langue.model.position import Alibi, DistanceEmbedding, RelativeBias
from langue.model.transformer import Step, Transformer, initialise
from langue.runtime import disable_cudnn_sdpa


def examples_of(lengths):
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Examples(
        np.arange(starts[-1], dtype=np.int32) % 50, starts, None, np.zeros(len(lengths), np.int32)
    )


def batch_of(lengths):
    return gather(examples_of(lengths), np.arange(len(lengths)))


SCORES = st.builds(
    AttentionConfig,
    causal=st.booleans(),
    window=st.sampled_from([0, 1, 3, 30]),
    scale=st.sampled_from([0.0, 1.0, 0.3]),
    cap=st.sampled_from([0.0, 2.0]),
)
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@settings(deadline=None, max_examples=40)
@given(LENGTHS, SCORES, st.booleans(), st.integers(0, 2**31))
def test_packed_self_attention(lengths, scores, biased, seed):
    scores = AttentionConfig(scores.causal, scores.window, scores.scale)
    batch = batch_of(lengths)
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(batch.n_tokens, 3, 2, 4, generator=generator)
    bias = torch.randn(2, max(lengths), max(lengths), generator=generator) if biased else None
    out = self_attention(qkv, batch.groups, config=scores, bias=bias)
    expected = attention_reference(qkv, batch.starts, config=scores, bias=bias)
    assert (out.double() - expected).norm() <= 1e-5 * expected.norm()


@settings(deadline=None, max_examples=40)
@given(LENGTHS, SCORES, st.booleans(), st.integers(0, 2**31))
def test_what_other_devices_than_processors_take_is_the_same(lengths, scores, biased, seed):
    """`self_attention` hands its packed queries, keys and values to `ragged_attention` there:
    values and gradients agree."""
    scores = AttentionConfig(scores.causal, scores.window, scores.scale)
    groups = batch_of(lengths).groups
    generator = torch.Generator().manual_seed(seed)
    qkv, weight = torch.randn(2, sum(lengths), 3, 2, 4, generator=generator, dtype=torch.float64)
    given = [qkv.requires_grad_()]
    if biased:
        given.append(
            torch.randn(
                2, max(lengths), max(lengths), generator=generator, dtype=torch.float64
            ).requires_grad_()
        )
    one = self_attention(qkv, groups, config=scores, bias=given[-1] if biased else None)
    pairs = [(o, o, n, t, t) for o, n, t in groups]
    other = ragged_attention(
        *qkv.unbind(1), pairs, config=scores, bias=given[-1] if biased else None
    )
    assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)
    gradients = (
        torch.autograd.grad((out * weight[:, 0].flatten(1)).sum(), given) for out in (one, other)
    )
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-11)


@settings(deadline=None, max_examples=40)
@given(
    *(LENGTHS, SCORES, st.booleans(), st.booleans()),
    *(st.sampled_from([1, 2, 4]), st.integers(0, 2**31)),
)
def test_self_attention_with_fewer_key_heads(lengths, scores, biased, sinking, kv_heads, seed):
    batch = batch_of(lengths)
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(batch.n_tokens, 4, 6, generator=generator)
    k, v = torch.randn(2, batch.n_tokens, kv_heads, 6, generator=generator)
    bias = torch.randn(4, max(lengths), max(lengths), generator=generator) if biased else None
    sinks = 3 * torch.randn(4, generator=generator) if sinking else None
    pairs = [(o, o, n, t, t) for o, n, t in batch.groups]
    out = ragged_attention(q, k, v, pairs, config=scores, bias=bias, sinks=sinks)
    expected = attention_reference((q, k, v), batch.starts, config=scores, bias=bias, sinks=sinks)
    assert (out.double() - expected).norm() <= 1e-5 * expected.norm()


@settings(deadline=None, max_examples=40)
@given(LENGTHS, st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2**31))
def test_scores_with_distances(lengths, to_position, packed, longer, seed):
    """Against one pair of tokens at a time; the table may be of longer sequences than these."""
    batch = batch_of(lengths)
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(batch.n_tokens, 3, 2, 4, generator=generator)
    size = 2 * (max(lengths) + 3 * longer)
    tables = torch.randn(2, size, 2, 4, generator=generator)
    distances = Distances(tables[0] if to_position else None, tables[1])
    scores = AttentionConfig(scale=0.3)
    if packed:
        out = self_attention(qkv, batch.groups, config=scores, distances=distances)
    else:
        pairs = [(o, o, n, t, t) for o, n, t in batch.groups]
        out = ragged_attention(*qkv.unbind(1), pairs, config=scores, distances=distances)
    expected = attention_reference(qkv, batch.starts, config=scores, distances=distances)
    assert (out.double() - expected).norm() <= 1e-5 * expected.norm()


def test_far_distances_share_an_embedding():
    """Near ones have their own, up to half of the buckets; the farthest has the last."""
    axes = {"content_to_position": True, "relative_buckets": 16, "relative_distance": 100}
    table = DistanceEmbedding(ModelConfig(10, 8, 1, 2, 8, 16, **axes))
    # 4 + ceil(3 log(d / 4) / log(99 / 4)), written out
    expected = {0: 0, 3: 3, 4: 4, 5: 5, 11: 5, 12: 6, 33: 6, 34: 7, 99: 7, 100: 8}
    for sign in (1, -1):
        found = table.bucket(sign * torch.tensor(list(expected))).tolist()
        assert found == [sign * bucket for bucket in expected.values()]
    states, rows = table(200)
    assert len(states) == 16 and len(rows) == 400
    assert rows[0] == 0 and rows[200] == 8 and rows[-1] == 15 and not bool((rows.diff() < 0).any())
    near, rows = table(3)  # of short texts, only what they need
    assert len(near) == 6 and torch.equal(near, table.table.weight[5:11])


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=8),
    st.integers(0, 2**31),
)
def test_attention_to_other_sequences(lengths, seed):
    sources, targets = (examples_of([pair[side] for pair in lengths]) for side in (0, 1))
    pairs = gather_pairs(sources, targets, np.random.default_rng(seed).permutation(len(lengths)))
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(pairs.target.n_tokens, 2, 4, generator=generator)
    k, v = torch.randn(2, pairs.source.n_tokens, 2, 4, generator=generator)
    out = ragged_attention(q, k[pairs.order], v[pairs.order], pairs.groups)
    counts = torch.tensor([lengths[row][0] for row in pairs.target.rows])
    starts = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    expected = attention_reference((q, k[pairs.order], v[pairs.order]), pairs.target.starts, starts)
    assert (out.double() - expected).norm() <= 1e-5 * expected.norm()
    # and the memory is that of each target's own source
    tokens = pairs.source.tokens[pairs.order]
    for place, row in enumerate(pairs.target.rows):
        begin = sources.starts[row]
        end = sources.starts[row + 1]
        assert (
            tokens[starts[place] : starts[place + 1]].tolist() == sources.tokens[begin:end].tolist()
        )


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_gradients_of_the_packed_path(dropout):
    batch = batch_of([2, 4, 4])
    qkv = torch.randn(batch.n_tokens, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)

    def function(x, b):
        torch.manual_seed(3)
        return self_attention(
            x, batch.groups, dropout, AttentionConfig(causal=True, window=3, scale=0.7), b
        )

    assert torch.autograd.gradcheck(function, (qkv, bias))


def test_the_future_is_not_seen():
    batch = batch_of([5, 5])
    qkv = torch.randn(batch.n_tokens, 3, 2, 4)
    before = self_attention(qkv, batch.groups, config=AttentionConfig(causal=True))
    qkv[3:5] += 1.0
    after = self_attention(qkv, batch.groups, config=AttentionConfig(causal=True))
    assert torch.equal(before[:3], after[:3]) and torch.equal(before[5:], after[5:])
    assert not torch.equal(before[3:5], after[3:5])


def test_alibi_is_the_papers():
    config = ModelConfig(10, 32, 1, 8, 8, 16, position="alibi", causal=True)
    bias = Alibi(config)(4)
    assert bias[:, 3, 3].tolist() == [0.0] * 8
    torch.testing.assert_close(bias[:, 3, 2], torch.tensor([-(2.0 ** -(i + 1)) for i in range(8)]))
    torch.testing.assert_close(bias[0, 3], torch.tensor([-1.5, -1.0, -0.5, 0.0]))


def test_relative_bias_depends_on_distance_alone():
    bias = RelativeBias(ModelConfig(10, 8, 1, 2, 8, 16, position="relative", relative_buckets=8))(9)
    for shift in (1, 4):
        assert torch.equal(bias[:, :-shift, :-shift], bias[:, shift:, shift:])


AXES = {
    "learned": {},
    "rotary": {
        "position": "rotary",
        "kv_heads": 2,
        "qk_norm": True,
        "norm": "rms",
        "windows": (0, 4),
    },
    "relative": {"position": "relative", "head_width": 6},
    "alibi": {"position": "alibi", "parallel": True},
    "normed behind": {
        "position": "rotary",
        "kv_heads": 2,
        "qk_norm": True,
        "qk_norm_joint": True,
        "norm": "rms",
        "norm_place": "after",
        "unrotated": (1,),
        "residual_scale": 0.5,
    },
    "capped": {
        "position": "none",
        "attention_cap": 3.0,
        "norm_place": "both",
        "norm": "rms_offset",
    },
    "sinks": {
        "position": "rotary",
        "attention_sinks": True,
        "kv_heads": 2,
        "windows": (4, 0),
    },
}


@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
def test_keys_in_pages_change_nothing(axes):
    """Sequences given in parts, each with others, their keys and values in pages that lie anywhere,
    give the hidden states of each at once."""
    config = ModelConfig(50, 32, 2, 4, 40, 40, **{"norm_place": "pre", "causal": True} | axes)
    model = Transformer(config).eval()
    initialise(model, 0.2, 0)
    for weight in model.parameters():
        weight.data.add_(0.05 * torch.randn(weight.shape))
    draw = random.Random(0)
    lengths = (9, 35, 35)
    ids = [[draw.randrange(50) for _ in range(n)] for n in lengths]
    whole = examples_of(list(lengths))
    whole.tokens[:] = sum(ids, [])
    batch = gather(whole, np.arange(3))
    # by sequence, where its parts end; a step has the next part of some
    steps = [{0: 4, 2: 16}, {0: 8}, {0: 9, 1: 35}, {2: 17}, {2: 33}, {2: 35}]
    pages = Pages(config, 12, torch.float32, torch.device("cpu"))
    pages.data.fill_(torch.nan)  # what no token wrote is not read
    free = draw.sample(range(12), 12)
    tables = [np.asarray([free.pop() for _ in range(pages_for(n))], np.int32) for n in lengths]
    done = [0, 0, 0]
    found = [[], [], []]
    with torch.no_grad():
        expected = model(*batch.inputs).split(lengths)
        for step in steps:
            tokens, positions, spans, totals = [], [], [], []
            for row, end in step.items():
                new = range(done[row], end)
                spans.append(Span(len(tokens), len(new), end, tables[row]))
                tokens += ids[row][new.start : end]
                positions += new
                totals += [lengths[row]] * len(new)
                done[row] = end
            where = Step(PagedKeys.of_spans(pages, spans), lengths=torch.tensor(totals))
            out = model(torch.tensor(tokens), torch.tensor(positions), [], step=where)
            for row, span in zip(step, spans, strict=True):
                found[row].append(out[span.offset : span.offset + span.new])
    for parts, states in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.cat(parts), states, atol=1e-5, rtol=1e-5)


def test_a_page_is_read_where_it_was_written():
    config = ModelConfig(50, 32, 2, 4, 40, 64, causal=True, kv_heads=2)
    pages = Pages(config, 5, torch.float32, torch.device("cpu"))
    assert pages.data.numel() * 4 == 5 * Pages.bytes_each(config, torch.float32)
    keys, values = torch.randn(2, 37, 2, 8)
    table = np.asarray([3, 0, 4], np.int32)
    slots = PagedKeys.of_spans(pages, [Span(0, 37, 37, table)]).slots
    assert slots.tolist()[::PAGE] == [3 * PAGE, 0, 4 * PAGE]
    pages.write(1, keys, values, slots)
    pages.copy(4, 1)
    for last in (4, 1):
        read = pages.read(1, torch.tensor([[3, 0, last]]), 37)
        assert all(torch.equal(a[0], b) for a, b in zip(read, (keys, values), strict=True))


class _Made(TorchDispatchMode):
    """Counts the numbers in all tensors that are made."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numbers += 0 if func.is_view or not isinstance(out, torch.Tensor) else out.numel()
        return out


@pytest.mark.parametrize("pooled", [False, True])
def test_the_gradient_of_many_groups_is_made_once_and_not_by_each(pooled):
    made = []
    for lengths in ([64] * 8, [64] * 4 + [65] * 4, list(range(50, 66)) * 2):
        batch = batch_of(lengths)
        tokens = torch.randn(batch.n_tokens, 4, 8, requires_grad=True)
        pairs = [(o, o, n, t, t) for o, n, t in batch.groups]
        with _Made() as counted:
            out = (
                pool_mean(tokens.flatten(1), batch)
                if pooled
                else ragged_attention(tokens, tokens, tokens, pairs)
            )
            out.sum().backward()
        made.append(counted.numbers / batch.n_tokens)
    one, two, many = made
    assert max(one, many) < 1.1 * two


def test_attention_on_a_gpu_is_not_planned_for_each_shape():
    """As if there were one: what is not computed needs none."""
    disable_cudnn_sdpa.cache_clear()
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        with FakeTensorMode():
            q = torch.empty(2, 3, 4, 8, device="cuda", dtype=torch.bfloat16)
            assert dense_attention(q, q, q).is_cuda
        assert before and not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
        disable_cudnn_sdpa.cache_clear()
