"""Qwen2 (Yang et al. 2024, arXiv:2407.10671): Llama with biases on queries, keys and values. Qwen3
(Yang et al. 2025, arXiv:2505.09388) has norms of queries and keys instead. Both may have windows
from some layer on.
"""

from typing import Any

from langue.hub.config_keys import Config, take
from langue.hub.families import llama
from langue.hub.rope import read_windows, write_layer_types, write_window
from langue.model.config import ModelConfig


def _windows(config: Config) -> tuple[int, ...]:
    window = config.get("sliding_window", 4096) if config.get("use_sliding_window", False) else None
    first = config.get("max_window_layers", 28)
    return read_windows(
        config, window, [i >= first for i in range(take(config, "num_hidden_layers"))]
    )


def _write_windows(config: ModelConfig) -> dict[str, Any]:
    window = write_window(config)
    return {
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "layer_types": write_layer_types(config),
    }


def read_qwen2(config: Config) -> ModelConfig:
    return llama.read(config, qkv_bias=True, out_bias=False, windows=_windows(config))


def read_qwen3(config: Config) -> ModelConfig:
    return llama.read(config, qk_norm=True, width=128, windows=_windows(config))


def write_qwen2(config: ModelConfig) -> dict[str, Any]:
    return llama.write(config) | _write_windows(config)


def write_qwen3(config: ModelConfig) -> dict[str, Any]:
    return write_qwen2(config) | {"attention_bias": config.has_bias("qkv")}


QWEN2 = llama.make("qwen2", "Qwen2", read_qwen2, write_qwen2)
QWEN3 = llama.make("qwen3", "Qwen3", read_qwen3, write_qwen3)
