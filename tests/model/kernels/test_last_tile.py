"""Rows that fill the last tile of a batch, pieces of its attention, and the kernels that processors
with tiles use: the same states and gradients as without."""

import copy

import numpy as np
import pytest
import torch

from langue.data.batch import Examples, gather, gather_pairs
from langue.model import attention as packed
from langue.model import transformer
from langue.model.attention import attention_reference, self_attention
from langue.model.config import ModelConfig
from langue.model.kernels import Linear
from langue.model.transformer import Transformer, initialise

SIZES = {"vocab_size": 50, "dim": 32, "n_layers": 2, "n_heads": 4, "ffn_dim": 64, "max_length": 64}
SIZES |= {"dropout": 0.0, "attention_dropout": 0.0}
CAUSAL = {"causal": True, "norm_place": "pre"}
DYNAMIC = {
    "position": "rotary",
    "rotary_scaling": "dynamic",
    "rotary_factor": 2.0,
    "rotary_length": 8,
}
MIXTURE = {"n_experts": 4, "experts_per_token": 2, "activation": "silu", "gated": True}
CONFIGS = {
    "encoder": {"n_segments": 2},
    "decoder": CAUSAL,
    "rotary decoder of groups": CAUSAL | {"position": "rotary", "kv_heads": 2},
    "dynamic rotary decoder": CAUSAL | DYNAMIC,
    "relative encoder": {"position": "relative", "relative_buckets": 8, "relative_distance": 16},
    "mixture": CAUSAL | {"position": "rotary"} | MIXTURE,
}
LENGTHS = [1, 3, 3, 17, 40, 60, 60, 60, 60]  # 304 tokens: nine tiles and a half


def examples(lengths=LENGTHS):
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = np.random.default_rng(0).integers(0, 50, starts[-1]).astype(np.int32)
    segments = (tokens % 2).astype(np.uint8)
    return Examples(tokens, starts, segments, np.zeros(len(lengths), np.int32))


def states_and_gradients(model, states):
    with torch.autocast("cpu", torch.bfloat16):
        found = states(model)
    (
        found.float() * torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    ).sum().backward()
    return [found.detach().float(), *(w.grad for w in model.parameters() if w.grad is not None)]


def assert_close(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() <= 1e-2 * theirs.norm() + 1e-6


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_beside_a_batch_change_nothing_in_it(name, monkeypatch):
    model = Transformer(ModelConfig(**SIZES | CONFIGS[name]))
    initialise(model, 0.2, 0)
    batch = gather(examples(), np.arange(len(LENGTHS)))
    rows = []
    inputs = batch.inputs if model.segment is not None else (*batch.inputs[:3], None)
    other = copy.deepcopy(model)
    model.blocks[0].feedforward.register_forward_hook(
        lambda module, given, made: rows.append(len(made))
    )
    found = states_and_gradients(model, lambda m: m(*inputs))
    assert rows == [320] and len(found[0]) == 304
    monkeypatch.setattr(transformer, "FILLED", 1 << 30)
    assert_close(found, states_and_gradients(other, lambda m: m(*inputs)))


def test_rows_beside_pairs_change_nothing_in_them(monkeypatch):
    model = Transformer(ModelConfig(**SIZES | {"decoder_layers": 2}))
    initialise(model, 0.2, 0)
    pairs = gather_pairs(examples(), examples(LENGTHS[::-1]), np.arange(len(LENGTHS)))
    other = copy.deepcopy(model)

    def states(m):
        memory = m(*pairs.source.inputs[:3])[pairs.order]
        return m.decode(
            pairs.target.tokens, pairs.target.positions, pairs.target.groups, memory, pairs.groups
        )

    found = states_and_gradients(model, states)
    monkeypatch.setattr(transformer, "FILLED", 1 << 30)
    assert_close(found, states_and_gradients(other, states))


def test_few_numbers_of_rows_and_few_rows_more():
    with torch.autocast("cpu", torch.bfloat16):
        filled = [
            rows + transformer._to_fill(rows, torch.device("cpu")) for rows in range(256, 16_385)
        ]
    assert len(set(filled)) <= 8 + 16 + 4 * 32 + 1
    assert all(
        have - rows < max(32, rows / 32 + 1)
        for rows, have in zip(range(256, 16_385), filled, strict=True)
    )


def test_in_fp32_and_below_some_rows_nothing_is_filled():
    model = Transformer(ModelConfig(**SIZES))
    rows = []
    model.blocks[0].register_forward_hook(lambda module, given, made: rows.append(len(made)))
    model(*gather(examples(), np.arange(len(LENGTHS))).inputs[:3])
    with torch.autocast("cpu", torch.bfloat16):
        model(*gather(examples([7]), np.arange(1)).inputs[:3])
    assert rows == [304, 7]


@pytest.mark.parametrize("causal", [False, True])
def test_attention_in_pieces_is_attention(causal, monkeypatch):
    groups = gather(examples(), np.arange(len(LENGTHS))).groups
    scores = packed.AttentionConfig(causal=causal)
    found = []
    for size in (1, 2 * 4 * 60 * 60, 1 << 40):  # one sequence at a time, two, all
        monkeypatch.setattr(packed, "CHUNK_SCORES", size)
        torch.manual_seed(0)
        qkv = torch.randn(304, 3, 4, 8, dtype=torch.float64, requires_grad=True)
        bias = torch.randn(4, 60, 60, dtype=torch.float64, requires_grad=True)
        out = self_attention(qkv, groups, 0.2, scores, bias)
        found.append((out, *torch.autograd.grad(out.square().sum(), (qkv, bias))))
    for some in found[:-1]:
        torch.testing.assert_close(some, found[-1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tiles", [False, True])
def test_attention_without_gradients_by_either_way(tiles, monkeypatch):
    monkeypatch.setattr(packed, "has_amx_bf16", lambda: tiles)
    batch = gather(examples(), np.arange(len(LENGTHS)))
    qkv = torch.randn(304, 3, 4, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.no_grad():
        out = self_attention(qkv, batch.groups)
    expected = attention_reference(qkv, batch.starts)
    assert (out.double() - expected).norm() <= 1e-2 * expected.norm()


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("held", [torch.float32, torch.bfloat16])
def test_a_layer_without_gradients_is_the_layer(held, there, monkeypatch):
    if not there:  # PyTorch for Macs
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        monkeypatch.setattr(torch.ops, "mkldnn", None, raising=False)
    layer = Linear(48, 24)
    x = torch.randn(300, 48)
    expected = torch.nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double())
    layer.weight.data = layer.weight.data.to(held)
    with torch.autocast("cpu", torch.bfloat16):
        kept = layer(x)
        with torch.no_grad():
            out = layer(x)
    assert (
        out.dtype == kept.dtype == torch.bfloat16 and kept.requires_grad and not out.requires_grad
    )
    assert (out.double() - expected).norm() <= 1e-2 * expected.norm()
    with torch.no_grad():
        assert layer.float()(x).dtype == torch.float32
