"""BERT (Devlin et al. 2018, arXiv:1810.04805): post-norm encoder, learned positions, two segments, exact GELU."""

from typing import Any

from langue.hub.family import Config, Family, Rule, read_activation, require, rule, take, write_activation
from langue.model.config import ModelConfig


def read(config: Config) -> ModelConfig:
    require(config, position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
    require(config, embedding_size=take(config, "hidden_size"))
    activation = read_activation(config, "hidden_act", "gelu")
    return ModelConfig(
        vocab_size=take(config, "vocab_size"),
        dim=take(config, "hidden_size"),
        n_layers=take(config, "num_hidden_layers"),
        n_heads=take(config, "num_attention_heads"),
        ffn_dim=take(config, "intermediate_size"),
        max_length=take(config, "max_position_embeddings"),
        norm_eps=config.get("layer_norm_eps", 1e-12),
        activation=activation,
        n_segments=config.get("type_vocab_size", 2),
        dropout=config.get("hidden_dropout_prob", 0.1),
        attention_dropout=config.get("attention_probs_dropout_prob", 0.1),
        init_std=config.get("initializer_range", 0.02),
        tied=config.get("tie_word_embeddings", True),
        head_transform=True,
        head_activation=activation,
        head_bias=True,
    )


def write(config: ModelConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.ffn_dim,
        "max_position_embeddings": config.max_length,
        "layer_norm_eps": config.norm_eps,
        "hidden_act": write_activation(config.activation),
        "type_vocab_size": config.n_segments,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tied,
    }


_LAYER = "encoder.layer.{i}."

BERT = Family(
    name="bert",
    prefix="bert.",
    read=read,
    write=write,
    architectures={"body": "BertModel", "classify": "BertForSequenceClassification", "lm": "BertForMaskedLM"},
    body=[
        Rule("token.weight", ("embeddings.word_embeddings.weight",)),
        Rule("position.weight", ("embeddings.position_embeddings.weight",)),
        Rule("segment.weight", ("embeddings.token_type_embeddings.weight",)),
        *rule("embedding_norm", "embeddings.LayerNorm"),
        *rule("blocks.{i}.attention.qkv", *(f"{_LAYER}attention.self.{part}" for part in ("query", "key", "value"))),
        *rule("blocks.{i}.attention.out", _LAYER + "attention.output.dense"),
        *rule("blocks.{i}.attention_norm", _LAYER + "attention.output.LayerNorm"),
        *rule("blocks.{i}.feedforward.up", _LAYER + "intermediate.dense"),
        *rule("blocks.{i}.feedforward.down", _LAYER + "output.dense"),
        *rule("blocks.{i}.feedforward_norm", _LAYER + "output.LayerNorm"),
    ],
    heads={
        "classify": [*rule("head.pooler", "bert.pooler.dense"), *rule("head.out", "classifier")],
        "lm": [
            *rule("head.dense", "cls.predictions.transform.dense"),
            *rule("head.norm", "cls.predictions.transform.LayerNorm"),
            Rule("head.out.weight", ("cls.predictions.decoder.weight",)),
            Rule("head.bias", ("cls.predictions.bias",)),
            *rule("head.pooler", "bert.pooler.dense"),
            *rule("head.pairs", "cls.seq_relationship"),
        ],
    },
    renames={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    unused=(r"embeddings\.position_ids$", r"(^|\.)pooler\.dense\.", r"^cls\.", r"^classifier\."),
)
