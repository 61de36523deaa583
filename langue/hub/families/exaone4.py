"""EXAONE 4 (LG AI Research 2025, arXiv:2507.11407): Llama with norms after each sublayer and norms
of the queries and keys of each head; the larger model has windows in three of four layers, and no
positions in the others.
"""

from dataclasses import replace
from typing import Any

from langue.hub.config_keys import Config, take
from langue.hub.families import llama, olmo
from langue.hub.rope import read_windows, write_layer_types, write_window
from langue.model.config import ModelConfig


def read(config: Config) -> ModelConfig:
    layers = range(take(config, "num_hidden_layers"))
    window = config.get("sliding_window", 4096)
    pattern = config.get("sliding_window_pattern", 4) if window else 0
    if isinstance(pattern, str):  # such as LLLG, repeated
        limited = [pattern[i % len(pattern)] == "L" for i in layers]
    else:
        limited = [bool(pattern) and (i + 1) % pattern > 0 for i in layers]
    windows = read_windows(config, window, limited)
    whole = [i for i in layers if not windows or not windows[i]]
    return llama.read(
        {"rms_norm_eps": 1e-5, "num_key_value_heads": 32} | dict(config),
        norm_place="after",
        qk_norm=True,
        windows=windows,
        unrotated=tuple(whole) if window else (),
    )


def write(config: ModelConfig) -> dict[str, Any]:
    window = write_window(config)
    return llama.write(config) | {
        "sliding_window": window,
        "sliding_window_pattern": 4 if window else None,
        "layer_types": write_layer_types(config),
    }


EXAONE4 = replace(llama.make("exaone4", "Exaone4", read, write), body=olmo.BODY)
