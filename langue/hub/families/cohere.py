"""Command R (Cohere 2024) and its successors (Cohere 2025, arXiv:2504.00698): Llama with parallel
attention and feed-forward after one LayerNorm without a bias, and interleaved rotary positions. In
the successors, three of four layers have a window, and the others have no positions.
"""

from dataclasses import replace
from typing import Any

from langue.hub.config_keys import USUAL, Config, Names, require, take
from langue.hub.families import llama
from langue.hub.families.glm import INTERLEAVED
from langue.hub.family import DECODING
from langue.hub.rope import (
    read_rope,
    read_windows,
    write_layer_types,
    write_rope_keys,
    write_window,
)
from langue.model.config import ModelConfig

_NAMES = Names(
    **USUAL,
    kv_heads=("num_key_value_heads", None),
    activation=("hidden_act", "silu"),
    norm_eps=("layer_norm_eps", 1e-5),
    bias=("attention_bias", False),
    logit_scale=("logit_scale", 0.0625),
    attention_dropout=("attention_dropout", 0.0),
    init_std=("initializer_range", 0.02),
    tied=("tie_word_embeddings", True),
)


def read_cohere(config: Config, base: float = 500_000.0, **more: Any) -> ModelConfig:
    require(config, use_qk_norm=(None, False))  # a separate norm for each head (Command R+)
    axes = _NAMES.read(
        config,
        norm_place="pre",
        norm_bias=False,
        embedding_norm=False,
        gated=True,
        parallel=True,
        shared_norm=True,
        ffn_bias=False,
        dropout=0.0,
        causal=True,
    )
    axes["kv_heads"] = axes["kv_heads"] or axes["n_heads"]
    axes |= read_rope(config, head_dim=axes["dim"] // axes["n_heads"], base=base)
    return ModelConfig(**axes | more)


def read_cohere2(config: Config) -> ModelConfig:
    layers = range(take(config, "num_hidden_layers"))
    every = config.get("sliding_window_pattern", 4)
    limited = [(i + 1) % every > 0 for i in layers]
    windows = read_windows(config, config.get("sliding_window", 4096), limited)
    whole = tuple(i for i in layers if not windows or not windows[i])
    return read_cohere(config, base=10_000.0, windows=windows, unrotated=whole)


def write_cohere(config: ModelConfig) -> dict[str, Any]:
    own = {"num_key_value_heads": config.n_kv_heads}
    return _NAMES.write(config) | own | write_rope_keys(config)


def write_cohere2(config: ModelConfig) -> dict[str, Any]:
    windows = {"sliding_window": write_window(config), "layer_types": write_layer_types(config)}
    return write_cohere(config) | windows


def _family(name: str, stem: str, read: Any, write: Any) -> Any:
    return replace(
        llama.make(name, stem, read, write),
        body=[r for r in INTERLEAVED if "feedforward_norm" not in r.ours],
        architectures={"body": f"{stem}Model", "lm": f"{stem}ForCausalLM"},
        heads={"lm": DECODING["lm"]},
        poolings={"first": {}},
    )


COHERE = _family("cohere", "Cohere", read_cohere, write_cohere)
COHERE2 = _family("cohere2", "Cohere2", read_cohere2, write_cohere2)
