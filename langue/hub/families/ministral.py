"""Ministral (Mistral AI 2024): Mistral with windows in some layers.

Ministral 3 (Mistral AI 2025, arXiv:2601.08584) is Mistral with queries that are scaled up with
their position beyond the original training length.
"""

from dataclasses import replace
from typing import Any

from langue.hub.config_keys import Config, take
from langue.hub.families import llama
from langue.hub.rope import read_windows, write_layer_types, write_window
from langue.model.config import ModelConfig

_GROWTH = "llama_4_scaling_beta"  # the key has this name in Llama 4 too
_ROPES = ("rope_parameters", "rope_scaling")
_USUAL = {  # if a config has no rotary settings
    "rope_type": "yarn",
    "rope_theta": 1_000_000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16_384,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    _GROWTH: 0.1,
}


def read_ministral(config: Config) -> ModelConfig:
    everywhere = [True] * take(config, "num_hidden_layers")
    windows = read_windows(config, config.get("sliding_window", 4096), everywhere)
    defaults = {"num_key_value_heads": 8}
    return llama.read(defaults | dict(config), windows=windows, qkv_bias=False, out_bias=False)


def write_ministral(config: ModelConfig) -> dict[str, Any]:
    windows = {"sliding_window": write_window(config), "layer_types": write_layer_types(config)}
    return llama.write(config) | windows


def read_ministral3(config: Config) -> ModelConfig:
    ropes = {key: config[key] for key in _ROPES if config.get(key)} or {_ROPES[0]: _USUAL}
    said: dict[str, Any] = next(iter(ropes.values()))
    skipped = (_GROWTH, "max_position_embeddings")
    kept = {
        key: {name: value for name, value in rope.items() if name not in skipped}
        for key, rope in ropes.items()
    }
    windows = read_windows(
        {}, config.get("sliding_window"), [True] * take(config, "num_hidden_layers")
    )
    base = llama.read(
        {"num_key_value_heads": 8, "head_dim": 128, "rms_norm_eps": 1e-5} | dict(config) | kept,
        windows=windows,
        qkv_bias=False,
        out_bias=False,
    )
    length = take(said, "original_max_position_embeddings")
    return replace(base, query_growth=float(said[_GROWTH]), rotary_length=length)


def write_ministral3(config: ModelConfig) -> dict[str, Any]:
    written = llama.write(config) | {"sliding_window": write_window(config)}
    own = {
        _GROWTH: config.query_growth,
        "original_max_position_embeddings": config.rotary_length,
    }
    return written | {key: written[key] | own for key in _ROPES if written[key]}


MINISTRAL = llama.make("ministral", "Ministral", read_ministral, write_ministral)
MINISTRAL3 = llama.make("ministral3", "Ministral3", read_ministral3, write_ministral3)
