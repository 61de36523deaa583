"""M2M-100 (Fan et al. 2020, arXiv:2010.11125) and NLLB (NLLB team 2022, arXiv:2207.04672),
translation models for 100 and 200 languages: mBART with sinusoidal positions and without an
embedding norm.
"""

from typing import Any

from langue.errors import ModelError
from langue.hub.config_keys import Config, take
from langue.hub.families import bart
from langue.model.config import ModelConfig


def read(config: Config) -> ModelConfig:
    defaults = {"activation_function": "relu", "attention_dropout": 0.1, "scale_embedding": True}
    # token 0 of a text uses the row after the padding token's id, as in RoBERTa
    offset = take({"pad_token_id": 1} | dict(config), "pad_token_id") + 1
    base = bart.read(
        defaults | dict(config),
        norm_place="pre",
        position="sinusoidal_fairseq",
        position_offset=offset,
        embedding_norm=False,
        head_bias=False,
    )
    if base.dim % 2 or base.dim < 4:
        raise ModelError(f"config: d_model = {base.dim} is no even number from 4 on")
    return base


def write(config: ModelConfig) -> dict[str, Any]:
    return bart.write(config) | {"pad_token_id": config.position_offset - 1}


M2M100 = bart.make(
    "m2m_100",
    {"body": "M2M100Model", "lm": "M2M100ForConditionalGeneration"},
    read,
    write,
    outputs={},
)
