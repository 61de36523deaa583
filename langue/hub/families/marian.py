"""Marian (Junczys-Dowmunt et al. 2018, arXiv:1804.00344), as in the published translation models:
BART with sinusoidal positions and without an embedding norm. Its two vocabularies may differ.
"""

from typing import Any

from langue.hub.config_keys import Config, take
from langue.hub.families import bart
from langue.model.config import ModelConfig


def read(config: Config) -> ModelConfig:
    own = (
        0
        if config.get("share_encoder_decoder_embeddings", True)
        else config.get("decoder_vocab_size")
    )
    return bart.read(
        config,
        position="sinusoidal_halves",
        embedding_norm=False,
        decoder_vocab_size=take(config, "vocab_size") if own is None else own,
    )


def write(config: ModelConfig) -> dict[str, Any]:
    return bart.write(config) | {
        "share_encoder_decoder_embeddings": not config.decoder_vocab_size
        # with tying, two tables always mean two vocabularies
        or (config.decoder_vocab_size == config.vocab_size and not config.tied),
        "decoder_vocab_size": config.decoder_vocab_size or config.vocab_size,
    }


MARIAN = bart.make(
    "marian", {"body": "MarianModel", "lm": "MarianMTModel"}, read, write, outputs={}
)
