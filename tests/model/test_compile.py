"""Blocks fused by PyTorch's compiler: the same losses and gradients, and no compiling again from
batch to batch."""

import copy

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from langue.data.batch import Examples, gather
from langue.model.config import ModelConfig
from langue.model.language_model import LanguageModel, compile_parts
from langue.model.transformer import Transformer, initialise

SIZES = {
    "vocab_size": 100,
    "dim": 32,
    "n_layers": 3,
    "n_heads": 4,
    "ffn_dim": 64,
    "max_length": 512,
    "dropout": 0.0,
}
CONFIGS = {
    "post-norm encoder": ModelConfig(**SIZES, attention_dropout=0.0),
    "rotary decoder": ModelConfig(
        **SIZES,
        attention_dropout=0.0,
        causal=True,
        position="rotary",
        norm="rms",
        norm_place="pre",
        qk_norm=True,
    ),
}


def batch(seed, tokens=256):
    """Sequences of random lengths that fill the budget to the token, as pretraining has them."""
    draw = np.random.default_rng(seed)
    ends = np.sort(draw.choice(np.arange(1, tokens), 8, replace=False))
    starts = np.concatenate([[0], ends, [tokens]]).astype(np.int64)
    ids = draw.integers(0, 100, tokens).astype(np.int32)
    return gather(Examples(ids, starts, None, np.zeros(9, np.int32)), np.arange(9))


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_compiled_blocks_are_the_same_blocks(config):
    torch._dynamo.reset()
    counters.clear()
    plain = Transformer(config)
    initialise(plain, 0.2, 0)
    fused = copy.deepcopy(plain)
    compile_parts(fused)
    graphs = []
    for seed in range(5):
        given = batch(seed)
        expected, found = (model(*given.inputs) for model in (plain, fused))
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
        expected.square().mean().backward()
        found.square().mean().backward()
        graphs.append(counters["stats"]["unique_graphs"])
    assert len(set(graphs)) == 1 and graphs[0] < 2 * SIZES["n_layers"]  # the layers share them
    for ours, theirs in zip(fused.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_compiled_loss_is_the_same_loss():
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    plain = LanguageModel(ModelConfig(**SIZES | {"vocab_size": 40_000}, causal=True))
    fused = copy.deepcopy(plain)
    compile_parts(fused)
    for count in (300, 300, 310, 420):  # the rest of a chunk differs from batch to batch
        hidden = torch.randn(count, 32)
        labels = torch.randint(0, 40_000, (count,))
        for dtype in (torch.float32, torch.bfloat16):
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                expected, found = (model.loss(hidden, labels, 1e-3) for model in (plain, fused))
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
            for loss, _ in (expected, found):
                loss.backward()
    # in each precision two sizes: whole chunks, and all others
    assert 2 <= counters["stats"]["unique_graphs"] <= 4
    ours, theirs = (model.body.token.weight.grad for model in (fused, plain))
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))
