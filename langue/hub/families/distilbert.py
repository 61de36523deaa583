"""DistilBERT (Sanh et al. 2019, arXiv:1910.01108): BERT without segments, with its own weight
names.
"""

from typing import Any

from langue.hub.config_keys import Config, Names, own_names
from langue.hub.family import Family, Rule, classes, rule
from langue.model.config import ModelConfig

_NAMES = Names(
    vocab_size="vocab_size",
    dim="dim",
    n_layers="n_layers",
    n_heads="n_heads",
    ffn_dim="hidden_dim",
    max_length="max_position_embeddings",
    activation=("activation", "gelu"),
    dropout=("dropout", 0.1),
    attention_dropout=("attention_dropout", 0.1),
    init_std=("initializer_range", 0.02),
    tied=("tie_word_embeddings", True),
)


_ALIASES = {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"}


def read(config: Config) -> ModelConfig:
    config = own_names(config, _ALIASES)
    axes = _NAMES.read(config, head_transform=True, head_bias=True, pooler_activation="relu")
    return ModelConfig(**axes, head_activation=axes["activation"])


def write(config: ModelConfig) -> dict[str, Any]:
    return _NAMES.write(config)


_LAYER = "transformer.layer.{i}."

DISTILBERT = Family(
    name="distilbert",
    prefix="distilbert.",
    read=read,
    write=write,
    architectures=classes("DistilBert", "ForMaskedLM"),
    body=[
        Rule("token.weight", ("embeddings.word_embeddings.weight",)),
        Rule("position.weight", ("embeddings.position_embeddings.weight",)),
        *rule("embedding_norm", "embeddings.LayerNorm"),
        *rule("blocks.{i}.attention.qkv", *(f"{_LAYER}attention.{part}_lin" for part in "qkv")),
        *rule("blocks.{i}.attention.out", _LAYER + "attention.out_lin"),
        *rule("blocks.{i}.attention_norm", _LAYER + "sa_layer_norm"),
        *rule("blocks.{i}.feedforward.up", _LAYER + "ffn.lin1"),
        *rule("blocks.{i}.feedforward.down", _LAYER + "ffn.lin2"),
        *rule("blocks.{i}.feedforward_norm", _LAYER + "output_layer_norm"),
    ],
    heads={
        "sequence": [*rule("head.pooler", "pre_classifier"), *rule("head.out", "classifier")],
        "lm": [
            *rule("head.dense", "vocab_transform"),
            *rule("head.norm", "vocab_layer_norm"),
            Rule("head.out.weight", ("vocab_projector.weight",)),
            Rule("head.bias", ("vocab_projector.bias",)),
        ],
    },
    unused=(r"^vocab_(transform|layer_norm|projector)\.", r"^(pre_)?classifier\."),
)
