"""StableLM (Bellagente et al. 2024, arXiv:2402.17834): Llama with LayerNorm, and rotary positions
on a part of each head; the largest model has one norm for both sublayers, and norms of queries and
keys for each head.
"""

from dataclasses import replace
from typing import Any

from langue.hub.config_keys import USUAL, Config, Names
from langue.hub.families import llama
from langue.hub.family import Rule
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
    parallel=("use_parallel_residual", False),
    qk_norm=("qk_layernorm", False),
)


def read(config: Config) -> ModelConfig:
    axes = _NAMES.read(
        config,
        norm_place="pre",
        norm_bias=True,
        gated=True,
        bias=False,
        embedding_norm=False,
        causal=True,
    )
    axes["shared_norm"] = axes["parallel"]
    axes["qk_norm_each"] = axes["qk_norm"]
    axes["kv_heads"] = axes["kv_heads"] or axes["n_heads"]
    axes |= read_rope(config, head_dim=axes["dim"] // axes["n_heads"], part=0.25)
    return ModelConfig(**axes)


def write(config: ModelConfig) -> dict[str, Any]:
    own = {"num_key_value_heads": config.n_kv_heads, "use_qkv_bias": config.has_bias("qkv")}
    return _NAMES.write(config) | own | write_partial_rope_keys(config)


_NORM = "layers.{i}.self_attn."
_HEADS = [
    Rule("blocks.{i}.attention.q_norm.weight", (_NORM + "q_layernorm.norms.{h}.weight",)),
    Rule("blocks.{i}.attention.k_norm.weight", (_NORM + "k_layernorm.norms.{g}.weight",)),
]
_BODY = [r for r in llama.BODY if r.ours.split(".")[-2] not in ("q_norm", "k_norm")]
STABLELM = replace(llama.make("stablelm", "StableLm", read, write), body=[*_BODY, *_HEADS])
