"""One token of each sequence wanted: states and gradients are those of computing all, and the last
block is spared."""

import copy

import numpy as np
import pytest
import torch

from langue.data.batch import Examples, gather
from langue.model.config import ModelConfig
from langue.model.heads import first_tokens, last_tokens
from langue.model.transformer import Transformer, initialise, set_activation_checkpointing

SIZES = {"vocab_size": 50, "dim": 24, "n_layers": 3, "n_heads": 4, "ffn_dim": 40, "max_length": 32}
SIZES |= {"dropout": 0.0, "attention_dropout": 0.0}
CAUSAL = {"causal": True, "norm_place": "pre"}
LENGTHS = (1, 3, 3, 7, 9, 9, 9)
# name: axes, and whether the last block can compute first tokens, and last ones, alone
CONFIGS = {
    "encoder": ({}, True, True),
    "rotary encoder": ({"position": "rotary", "norm_place": "pre", "qk_norm": True}, True, True),
    "window in the last layer": ({"position": "rotary", "windows": (0, 0, 4)}, False, False),
    "window elsewhere": ({"position": "rotary", "windows": (4, 4, 0)}, True, True),
    "shared encoder": ({"layer_groups": 1}, True, True),
    "encoder with biases": (
        {"relative_bias": True, "relative_buckets": 8, "relative_distance": 16},
        False,
        False,
    ),
    "normed behind": (
        CAUSAL | {"position": "rotary", "norm_place": "after", "residual_scale": 0.5},
        False,
        True,
    ),
    "relative encoder": (
        {"position": "relative", "relative_buckets": 8, "relative_distance": 16},
        False,
        False,
    ),
    "encoder of distances": (
        {"content_to_position": True, "relative_buckets": 8, "relative_distance": 16},
        False,
        False,
    ),
    "convolution in the last layer": ({"n_layers": 1, "convolution": 3}, False, False),
    "decoder": (CAUSAL, False, True),
    "grouped decoder": (
        CAUSAL | {"position": "rotary", "kv_heads": 2, "qkv_bias": False},
        False,
        True,
    ),
    "windowed decoder": (CAUSAL | {"position": "rotary", "windows": (0, 4, 4)}, False, True),
    "capped decoder": (
        CAUSAL | {"position": "rotary", "attention_cap": 2.0, "norm_place": "both"},
        False,
        True,
    ),
    "parallel decoder": (CAUSAL | {"position": "rotary", "parallel": True}, False, True),
    "parallel decoder behind one norm": (
        CAUSAL | {"position": "rotary", "parallel": True, "shared_norm": True},
        False,
        True,
    ),
    "decoder whose queries grow": (
        CAUSAL | {"position": "rotary", "query_growth": 0.5, "rotary_length": 3},
        False,
        True,
    ),
    "narrowed decoder": (
        CAUSAL | {"embedding_dim": 8, "position_widened": True, "narrowed": True},
        False,
        True,
    ),
    "alibi decoder": (CAUSAL | {"position": "alibi"}, False, True),
}


def batch():
    starts = np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int64)
    tokens = np.random.default_rng(0).integers(0, 50, starts[-1]).astype(np.int32)
    return gather(
        Examples(tokens, starts, None, np.zeros(len(LENGTHS), np.int32)), np.arange(len(LENGTHS))
    )


@pytest.mark.parametrize("activation_checkpointing", [False, True])
@pytest.mark.parametrize("which", ["first", "last"])
@pytest.mark.parametrize("name", CONFIGS)
def test_wanted_tokens_are_those_of_all(name, which, activation_checkpointing):
    axes, *narrow = CONFIGS[name]
    whole = Transformer(ModelConfig(**SIZES | axes))
    initialise(whole, 0.3, 0)
    spared = copy.deepcopy(whole)
    set_activation_checkpointing(spared, activation_checkpointing)
    given = batch()
    query_positions = first_tokens(given) if which == "first" else last_tokens(given)
    expected = whole(*given.inputs)[query_positions]
    seen = []
    spared.blocks[-1].feedforward.register_forward_hook(
        lambda module, inputs, output: seen.append(len(output))
    )
    found = spared(*given.inputs, query_positions=query_positions)
    # a shared block is passed once a layer, of which the last is narrow
    assert len(seen) == whole.config.n_layers - len(whole.blocks) + 1
    assert seen[-1] == (len(LENGTHS) if narrow[which == "last"] else sum(LENGTHS))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn(expected.shape)
    for states in (expected, found):
        (states * weights).sum().backward()
    for ours, theirs in zip(spared.parameters(), whole.parameters(), strict=True):
        if theirs.grad is None:
            assert ours.grad is None
        else:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
