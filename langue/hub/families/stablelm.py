"""StableLM (Bellagente et al. 2024, arXiv:2402.17834): Llama with LayerNorm, and rotary positions
on a part of each head.
"""

from typing import Any

from langue.hub.config_keys import USUAL, Config, Names, require
from langue.hub.families import llama
from langue.hub.rope import read_rope, write_partial_rope_keys
from langue.model.config import ModelConfig

_NAMES = Names(
    **USUAL,
    kv_heads=("num_key_value_heads", 32),
    norm_eps=("layer_norm_eps", 1e-5),
    activation=("hidden_act", "silu"),
    qkv_bias=("use_qkv_bias", False),
    dropout=("hidden_dropout", 0.0),
    attention_dropout=("attention_dropout", 0.0),
    init_std=("initializer_range", 0.02),
    tied=("tie_word_embeddings", False),
)


def read(config: Config) -> ModelConfig:
    # one norm for both sublayers, and a norm for each head (StableLM 2 12B)
    require(config, use_parallel_residual=False, qk_layernorm=False)
    axes = _NAMES.read(
        config,
        norm_place="pre",
        norm_bias=True,
        gated=True,
        bias=False,
        embedding_norm=False,
        causal=True,
    )
    axes["kv_heads"] = axes["kv_heads"] or axes["n_heads"]
    axes |= read_rope(config, head_dim=axes["dim"] // axes["n_heads"], part=0.25)
    return ModelConfig(**axes)


def write(config: ModelConfig) -> dict[str, Any]:
    own = {"num_key_value_heads": config.n_kv_heads, "use_qkv_bias": config.has_bias("qkv")}
    return _NAMES.write(config) | own | write_partial_rope_keys(config)


STABLELM = llama.make("stablelm", "StableLm", read, write)
