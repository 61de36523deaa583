"""Seed-OSS (ByteDance 2025): Llama with biases on queries, keys and values, and dropout."""

from typing import Any

from langue.hub.config_keys import Config
from langue.hub.families import llama
from langue.model.config import ModelConfig


def read(config: Config) -> ModelConfig:
    defaults = {"num_key_value_heads": 8, "attention_bias": True, "attention_dropout": 0.1}
    return llama.read(
        {"head_dim": 128} | defaults | dict(config),
        out_bias=config.get("attention_out_bias", False),
        dropout=config.get("residual_dropout", 0.1),
    )


def write(config: ModelConfig) -> dict[str, Any]:
    return llama.write_llama(config) | {
        "attention_out_bias": config.has_bias("out"),
        "residual_dropout": config.dropout,
    }


SEED_OSS = llama.make("seed_oss", "SeedOss", read, write)
