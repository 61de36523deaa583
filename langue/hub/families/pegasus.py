"""Pegasus (Zhang et al. 2019, arXiv:1912.08777), for summarisation: mBART with sinusoidal positions
and without an embedding norm.
"""

from langue.hub.config_keys import Config
from langue.hub.families import bart
from langue.model.config import ModelConfig


def read(config: Config) -> ModelConfig:
    return bart.read(config, norm_place="pre", position="sinusoidal_halves", embedding_norm=False)


PEGASUS = bart.make(
    "pegasus",
    {"body": "PegasusModel", "lm": "PegasusForConditionalGeneration"},
    read,
    outputs={},
)
