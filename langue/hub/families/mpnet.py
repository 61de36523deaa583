"""MPNet (Song et al. 2020, arXiv:2004.09297): RoBERTa without segments, and with relative position
biases in addition to its positions.
"""

from dataclasses import replace
from typing import Any

from langue.hub.config_keys import Config, require
from langue.hub.families import bert
from langue.hub.families.roberta import ROBERTA
from langue.hub.family import Rule, classes, rule
from langue.model.config import ModelConfig

_OFFSET = 2  # row of the first position; the padding id is 1, whatever the config says


def read(config: Config) -> ModelConfig:
    # the published class supports no other value
    require(config, relative_attention_num_buckets=32)
    base = bert.read(config)
    return replace(
        base,
        n_segments=0,
        relative_bias=True,
        position_offset=_OFFSET,
        max_length=base.max_length - _OFFSET,
        head_activation="gelu",
    )


def write(config: ModelConfig) -> dict[str, Any]:
    written = bert.write(config)
    del written["type_vocab_size"]
    return written | {
        "max_position_embeddings": config.max_length + _OFFSET,
        "relative_attention_num_buckets": config.relative_buckets,
    }


_ATTENTION = "encoder.layer.{i}.attention."

MPNET = replace(
    ROBERTA,
    name="mpnet",
    prefix="mpnet.",
    read=read,
    write=write,
    architectures=classes("MPNet", "ForMaskedLM"),
    body=[
        *(r for r in ROBERTA.body if ".attention." not in r.theirs[0]),
        Rule("bias.table.weight", ("encoder.relative_attention_bias.weight",)),
        *rule("blocks.{i}.attention.qkv", *(f"{_ATTENTION}attn.{part}" for part in "qkv")),
        *rule("blocks.{i}.attention.out", _ATTENTION + "attn.o"),
        *rule("blocks.{i}.attention_norm", _ATTENTION + "LayerNorm"),
    ],
)
