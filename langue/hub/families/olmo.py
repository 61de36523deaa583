"""OLMo 2 (OLMo team 2024, arXiv:2501.00656): Llama with norms after each sublayer, and norms over
all queries and all keys of a token together. OLMo 3 (2025) has windows in three of four layers.
"""

from dataclasses import replace
from typing import Any

from langue.hub.config_keys import Config, take
from langue.hub.families import llama
from langue.hub.family import rule
from langue.hub.rope import (
    read_two_ropes,
    read_windows,
    write_layer_types,
    write_two_ropes,
    write_window,
)
from langue.model.config import ModelConfig


def read_olmo2(config: Config) -> ModelConfig:
    return llama.read(
        {"rms_norm_eps": 1e-5} | dict(config),
        norm_place="after",
        qk_norm=True,
        qk_norm_joint=True,
        ffn_bias=False,
    )


def write_olmo2(config: ModelConfig) -> dict[str, Any]:
    return llama.write(config) | {"attention_bias": config.has_bias("qkv")}


def read_olmo3(config: Config) -> ModelConfig:
    layers = range(take(config, "num_hidden_layers"))
    limited = [(i + 1) % 4 > 0 for i in layers]
    base = read_olmo2({k: v for k, v in config.items() if not k.startswith("rope_")})
    both = (500_000.0, 500_000.0)
    old = ("rope_theta", "rope_theta")
    return replace(
        base,
        windows=read_windows(config, config.get("sliding_window", 4096), limited),
        **read_two_ropes(config, head_dim=base.head_dim, bases=both, old=old),
    )


def write_olmo3(config: ModelConfig) -> dict[str, Any]:
    return write_olmo2(config) | {
        "sliding_window": write_window(config),
        "layer_types": write_layer_types(config),
        "rope_parameters": write_two_ropes(config),
    }


_NORMS = ("attention_norm", "feedforward_norm")
BODY = [r for r in llama.BODY if r.ours.split(".")[-2] not in _NORMS] + [
    *rule("blocks.{i}.attention_out_norm", "layers.{i}.post_attention_layernorm"),
    *rule("blocks.{i}.feedforward_out_norm", "layers.{i}.post_feedforward_layernorm"),
]

OLMO2 = replace(llama.make("olmo2", "Olmo2", read_olmo2, write_olmo2), body=BODY)
OLMO3 = replace(llama.make("olmo3", "Olmo3", read_olmo3, write_olmo3), body=BODY)
