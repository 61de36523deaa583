"""Helium (Kyutai 2025, arXiv:2410.00037) and the ERNIE 4.5 models (Baidu 2025) without experts:
Llama with interleaved rotary positions.
"""

from dataclasses import replace
from typing import Any

from langue.hub.config_keys import Config
from langue.hub.families import llama
from langue.hub.families.glm import INTERLEAVED
from langue.hub.family import DECODING
from langue.model.config import ModelConfig


def read_helium(config: Config) -> ModelConfig:
    defaults = {"num_key_value_heads": 20, "head_dim": 128, "rms_norm_eps": 1e-8}
    defaults["rope_theta"] = 100_000.0
    return llama.read(defaults | dict(config), out_bias=False)


def read_ernie(config: Config) -> ModelConfig:
    defaults = {"num_key_value_heads": 2, "head_dim": 128, "rms_norm_eps": 1e-5}
    defaults |= {"rope_theta": 500_000.0, "tie_word_embeddings": True}
    bias = config.get("use_bias", False)
    biases = {f"{part}_bias": bias for part in ("qkv", "out", "ffn")}
    return llama.read(defaults | dict(config), **biases)


def write_ernie(config: ModelConfig) -> dict[str, Any]:
    return llama.write(config) | {"use_bias": config.has_bias("qkv")}


HELIUM = replace(llama.make("helium", "Helium", read_helium, llama.write_llama), body=INTERLEAVED)
ERNIE = replace(
    llama.make("ernie4_5", "Ernie4_5", read_ernie, write_ernie),
    body=INTERLEAVED,
    architectures={"body": "Ernie4_5Model", "lm": "Ernie4_5ForCausalLM"},
    heads={"lm": DECODING["lm"]},
    poolings={"first": {}},
)
