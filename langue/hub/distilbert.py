"""DistilBERT (Sanh et al. 2019, arXiv:1910.01108): BERT without segments, under names of its own."""

from typing import Any

from langue.hub.family import Config, Family, Rule, read_activation, rule, take, write_activation
from langue.model.config import ModelConfig


def read(config: Config) -> ModelConfig:
    activation = read_activation(config, "activation", "gelu")
    return ModelConfig(
        vocab_size=take(config, "vocab_size"),
        dim=take(config, "dim"),
        n_layers=take(config, "n_layers"),
        n_heads=take(config, "n_heads"),
        ffn_dim=take(config, "hidden_dim"),
        max_length=take(config, "max_position_embeddings"),
        activation=activation,
        dropout=config.get("dropout", 0.1),
        attention_dropout=config.get("attention_dropout", 0.1),
        init_std=config.get("initializer_range", 0.02),
        tied=config.get("tie_word_embeddings", True),
        head_transform=True,
        head_activation=activation,
        head_bias=True,
        pooler_activation="relu",
    )


def write(config: ModelConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "dim": config.dim,
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "hidden_dim": config.ffn_dim,
        "max_position_embeddings": config.max_length,
        "activation": write_activation(config.activation),
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tied,
    }


_LAYER = "transformer.layer.{i}."

DISTILBERT = Family(
    name="distilbert",
    prefix="distilbert.",
    read=read,
    write=write,
    architectures={
        "body": "DistilBertModel",
        "classify": "DistilBertForSequenceClassification",
        "lm": "DistilBertForMaskedLM",
    },
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
        "classify": [*rule("head.pooler", "pre_classifier"), *rule("head.out", "classifier")],
        "lm": [
            *rule("head.dense", "vocab_transform"),
            *rule("head.norm", "vocab_layer_norm"),
            Rule("head.out.weight", ("vocab_projector.weight",)),
            Rule("head.bias", ("vocab_projector.bias",)),
        ],
    },
    unused=(r"^vocab_(transform|layer_norm|projector)\.", r"^(pre_)?classifier\."),
)
