"""ALBERT (Lan et al. 2019, arXiv:1909.11942): BERT with a factorised embedding and with one block,
or a few, whose weights all layers share.
"""

from dataclasses import replace
from typing import Any

from langue.hub.config_keys import Config, require
from langue.hub.families import bert
from langue.hub.family import Rule, classes, rule
from langue.model.config import ModelConfig


def read(config: Config) -> ModelConfig:
    require(config, inner_group_num=1)
    defaults = {"hidden_act": "gelu_new", "hidden_dropout_prob": 0.0}
    rest = {key: value for key, value in config.items() if key != "embedding_size"}
    base = bert.read(defaults | {"attention_probs_dropout_prob": 0.0} | rest)
    return replace(
        base,
        embedding_dim=config.get("embedding_size", 128),
        layer_groups=config.get("num_hidden_groups", 1),
    )


def write(config: ModelConfig) -> dict[str, Any]:
    return bert.write(config) | {
        "embedding_size": config.embedding_dim,
        "num_hidden_groups": config.layer_groups,
    }


_BLOCK = "encoder.albert_layer_groups.{i}.albert_layers.0."
_ATTENTION = _BLOCK + "attention."

ALBERT = replace(
    bert.BERT,
    name="albert",
    prefix="albert.",
    read=read,
    write=write,
    architectures=classes("Albert", "ForMaskedLM"),
    body=[
        *(r for r in bert.BERT.body if r.theirs[0].startswith("embeddings.")),
        *rule("widen", "encoder.embedding_hidden_mapping_in"),
        *rule(
            "blocks.{i}.attention.qkv",
            *(_ATTENTION + part for part in ("query", "key", "value")),
        ),
        *rule("blocks.{i}.attention.out", _ATTENTION + "dense"),
        *rule("blocks.{i}.attention_norm", _ATTENTION + "LayerNorm"),
        *rule("blocks.{i}.feedforward.up", _BLOCK + "ffn"),
        *rule("blocks.{i}.feedforward.down", _BLOCK + "ffn_output"),
        *rule("blocks.{i}.feedforward_norm", _BLOCK + "full_layer_layer_norm"),
    ],
    heads={
        "sequence": [*rule("head.pooler", "albert.pooler"), *rule("head.out", "classifier")],
        "lm": [
            *rule("head.dense", "predictions.dense"),
            *rule("head.norm", "predictions.LayerNorm"),
            Rule("head.out.weight", ("predictions.decoder.weight",)),
            Rule("head.bias", ("predictions.bias",), tied=("predictions.decoder.bias",)),
        ],
    },
    unused=(
        r"embeddings\.position_ids$",
        r"(^|\.)pooler\.",
        r"^(predictions|sop_classifier|classifier)\.",
    ),
)
