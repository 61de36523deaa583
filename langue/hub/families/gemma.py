"""Gemma 1 (arXiv:2403.08295): Llama with norm weights stored minus one, and a scaled embedding.

Gemma 2 (arXiv:2408.00118) and the text part of Gemma 3 (arXiv:2503.19786) also have norms before
and after each sublayer, windows, and soft caps or norms of queries and keys. The body of
EmbeddingGemma (arXiv:2509.20354) is Gemma 3 with bidirectional attention.
"""

import math
from dataclasses import replace
from typing import Any

from langue.hub.config_keys import Config, read_activation, require, take
from langue.hub.families import llama
from langue.hub.family import Family, classes, rule
from langue.hub.rope import (
    read_rope,
    read_two_ropes,
    read_windows,
    write_layer_types,
    write_two_ropes,
    write_window,
)
from langue.model.config import ModelConfig


def read_gemma(config: Config) -> ModelConfig:
    require(config, use_bidirectional_attention=(None, False))
    # older published configs say gelu but mean its tanh approximation
    require(config, hidden_activation=(None, "gelu_pytorch_tanh"))
    defaults = {"hidden_act": "gelu", "head_dim": 256, "num_key_value_heads": 16}
    published = defaults | {"tie_word_embeddings": True} | dict(config)
    if published["hidden_act"] == "gelu":
        published["hidden_act"] = "gelu_pytorch_tanh"
    base = llama.read(published)
    return replace(base, norm="rms_offset", embedding_scale=math.sqrt(base.dim))


def write_gemma(config: ModelConfig) -> dict[str, Any]:
    written = llama.write_llama(config)
    del written["mlp_bias"]
    if config.activation == "gelu_tanh":
        written["hidden_act"] = "gelu_pytorch_tanh"
    return written


def _read(config: Config, every: int, window: int | None) -> ModelConfig:
    layers = take(config, "num_hidden_layers")
    windows = read_windows(config, window, [(i + 1) % every > 0 for i in range(layers)])
    published = {"head_dim": 256, "num_key_value_heads": 4, "tie_word_embeddings": True} | dict(
        config
    )
    base = llama.read(
        {key: value for key, value in published.items() if not key.startswith("rope_")}
    )
    return replace(
        base,
        norm="rms_offset",
        norm_place="both",
        activation=read_activation(config, "hidden_activation", "gelu_pytorch_tanh"),
        embedding_scale=math.sqrt(base.dim),
        attention_scale=config.get("query_pre_attn_scalar", 256) ** -0.5,
        windows=windows,
    )


def read_gemma2(config: Config) -> ModelConfig:
    require(config, use_bidirectional_attention=(None, False))
    base = _read(config, every=2, window=config.get("sliding_window", 4096))
    return replace(
        base,
        attention_cap=float(config.get("attn_logit_softcapping", 50.0) or 0.0),
        logit_cap=float(config.get("final_logit_softcapping", 30.0) or 0.0),
        **read_rope(config, head_dim=base.head_dim),
    )


_GEMMA3 = {  # what configs omit for the text part of a model that also reads images
    "vocab_size": 262_208,
    "num_attention_heads": 8,
    "max_position_embeddings": 131_072,
}


def read_gemma3(config: Config) -> ModelConfig:
    config = _GEMMA3 | dict(config)
    every: Any = config.get("sliding_window_pattern", config.get("_sliding_window_pattern", 6))
    window = config.get("sliding_window", 4096)
    both_ways = bool(config.get("use_bidirectional_attention", False))  # EmbeddingGemma's body
    if both_ways and window:
        window = window // 2 + 1  # the config counts both sides together
    base = _read(config, every, window)
    old = ("rope_theta", "rope_local_base_freq")
    return replace(
        base,
        causal=not both_ways,
        qk_norm=True,
        attention_cap=float(config.get("attn_logit_softcapping") or 0.0),
        logit_cap=float(config.get("final_logit_softcapping") or 0.0),
        **read_two_ropes(config, head_dim=base.head_dim, bases=(1_000_000.0, 10_000.0), old=old),
    )


def write_gemma2(config: ModelConfig) -> dict[str, Any]:
    written = write_gemma(config)
    activation = written.pop("hidden_act")
    return written | {
        "hidden_activation": activation,
        "query_pre_attn_scalar": round(config.attention_scale**-2),
        "attn_logit_softcapping": config.attention_cap or None,
        "final_logit_softcapping": config.logit_cap or None,
        "sliding_window": write_window(config),
        "layer_types": write_layer_types(config),
    }


def write_gemma3(config: ModelConfig) -> dict[str, Any]:
    ropes = {
        "rope_parameters": write_two_ropes(config),
        "rope_local_base_freq": config.rotary_local_base,
    }
    written = write_gemma2(config) | ropes | {"use_bidirectional_attention": not config.causal}
    window = write_window(config)
    if not config.causal and window:
        written["sliding_window"] = 2 * (window - 1)
    return written


_BODY = [r for r in llama.BODY if "feedforward_norm" not in r.ours] + [
    *rule("blocks.{i}.attention_out_norm", "layers.{i}.post_attention_layernorm"),
    *rule("blocks.{i}.feedforward_norm", "layers.{i}.pre_feedforward_layernorm"),
    *rule("blocks.{i}.feedforward_out_norm", "layers.{i}.post_feedforward_layernorm"),
]


def _family(name: str, stem: str, text: str, read: Any, write: Any) -> Family:
    published = classes(text, "") | {"lm": f"{stem}ForCausalLM"}
    return replace(llama.make(name, stem, read, write), body=_BODY, architectures=published)


GEMMA = llama.make("gemma", "Gemma", read_gemma, write_gemma)
GEMMA2 = _family("gemma2", "Gemma2", "Gemma2", read_gemma2, write_gemma2)
GEMMA3 = _family("gemma3_text", "Gemma3", "Gemma3Text", read_gemma3, write_gemma3)
