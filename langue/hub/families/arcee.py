"""Arcee's foundation models (Arcee 2025, AFM-4.5B): Llama with a squared ReLU in place of the gated
feed-forward.
"""

from langue.hub.config_keys import Config
from langue.hub.families import llama
from langue.model.config import ModelConfig


def read(config: Config) -> ModelConfig:
    defaults = {"hidden_act": "relu2", "rms_norm_eps": 1e-5}
    return llama.read(defaults | dict(config), gated=False)


ARCEE = llama.make("arcee", "Arcee", read, llama.write_llama)
