"""SmolLM3 (Bakouch et al. 2025, Hugging Face): Llama without rotary positions in every fourth
layer.
"""

from typing import Any

from langue.hub.config_keys import Config, take
from langue.hub.families import llama
from langue.hub.rope import read_windows, write_layer_types, write_window
from langue.model.config import ModelConfig


def read(config: Config) -> ModelConfig:
    layers = take(config, "num_hidden_layers")
    every = config.get("no_rope_layer_interval", 4)
    turns = config.get("no_rope_layers")  # 1: the layer has rotary positions, in spite of the name
    if turns is None:
        turns = [(i + 1) % every != 0 for i in range(layers)]
    limited = config.get("use_sliding_window", False)
    defaults = {"num_key_value_heads": 4, "tie_word_embeddings": True, "rope_theta": 2_000_000.0}
    return llama.read(
        defaults | dict(config),
        unrotated=tuple(i for i in range(layers) if not turns[i]),
        windows=read_windows(
            config, config.get("sliding_window"), [limited and not each for each in turns]
        ),
    )


def write(config: ModelConfig) -> dict[str, Any]:
    window = write_window(config)
    return llama.write_llama(config) | {
        "no_rope_layers": [int(i not in config.unrotated) for i in range(config.n_layers)],
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "layer_types": write_layer_types(config),
    }


SMOLLM3 = llama.make("smollm3", "SmolLM3", read, write)
