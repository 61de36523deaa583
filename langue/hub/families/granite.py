"""Granite 3 (IBM 2024): Llama with scaling factors of the embedding, the attention scores, the
output of each sublayer, and the logits.
"""

from dataclasses import replace
from typing import Any

from langue.hub.config_keys import Config
from langue.hub.families import llama
from langue.hub.family import DECODING
from langue.model.config import ModelConfig


def read(config: Config) -> ModelConfig:
    return llama.read(
        config,
        embedding_scale=float(config.get("embedding_multiplier", 1.0)),
        attention_scale=float(config.get("attention_multiplier", 1.0)),
        residual_scale=float(config.get("residual_multiplier", 1.0)),
        logit_scale=1.0 / config.get("logits_scaling", 1.0),
    )


def write(config: ModelConfig) -> dict[str, Any]:
    return llama.write_llama(config) | {
        "embedding_multiplier": config.embedding_scale,
        "attention_multiplier": config.attention_scale or config.head_dim**-0.5,
        "residual_multiplier": config.residual_scale,
        "logits_scaling": 1.0 / config.logit_scale,
    }


GRANITE = replace(
    llama.make("granite", "Granite", read, write),
    architectures={"body": "GraniteModel", "lm": "GraniteForCausalLM"},
    heads={"lm": DECODING["lm"]},
    poolings={"first": {}},
)
