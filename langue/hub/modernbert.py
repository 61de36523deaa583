"""ModernBERT (Warner et al. 2024, arXiv:2412.13663): pre-norm, rotary positions, windows in most layers, GeGLU."""

from typing import Any

from langue.hub.family import Config, Family, Rule, read_activation, rule, take, write_activation
from langue.hub.rope import read_two_ropes, read_windows, write_layer_types, write_two_ropes
from langue.model.config import ModelConfig


def read(config: Config) -> ModelConfig:
    dim, heads, layers = (take(config, f"{n}") for n in ("hidden_size", "num_attention_heads", "num_hidden_layers"))
    every = config.get("global_attn_every_n_layers", 3)
    # `local_attention` counts both sides; a token sees half of it to the left, itself, and half to the right.
    window = config.get("local_attention", 128) // 2 + 1
    old = ("global_rope_theta", "local_rope_theta")
    return ModelConfig(
        vocab_size=take(config, "vocab_size"),
        dim=dim,
        n_layers=layers,
        n_heads=heads,
        ffn_dim=take(config, "intermediate_size"),
        max_length=take(config, "max_position_embeddings"),
        norm_place="pre",
        norm_eps=config.get("norm_eps", 1e-5),
        norm_bias=config.get("norm_bias", False),
        activation=read_activation(config, "hidden_activation", "gelu"),
        gated=True,
        qkv_bias=config.get("attention_bias", False),
        out_bias=config.get("attention_bias", False),
        ffn_bias=config.get("mlp_bias", False),
        first_norm=False,
        windows=read_windows(config, window, [i % every > 0 for i in range(layers)]),
        **read_two_ropes(config, head_dim=dim // heads, bases=(160_000.0, 10_000.0), old=old),
        dropout=config.get("mlp_dropout", 0.0),
        attention_dropout=config.get("attention_dropout", 0.0),
        init_std=config.get("initializer_range", 0.02),
        tied=config.get("tie_word_embeddings", True),
        head_transform=True,
        head_activation=read_activation(config, "classifier_activation", "gelu"),
        dense_bias=config.get("classifier_bias", False),
        classifier_transform=True,
        head_bias=config.get("decoder_bias", True),
    )


def write(config: ModelConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.ffn_dim,
        "max_position_embeddings": config.max_length,
        "norm_eps": config.norm_eps,
        "norm_bias": config.has_bias("norm"),
        "hidden_activation": write_activation(config.activation),
        "attention_bias": config.has_bias("qkv"),
        "mlp_bias": config.has_bias("ffn"),
        "layer_types": write_layer_types(config),
        "local_attention": 2 * (max(config.windows, default=65) - 1),
        "rope_parameters": write_two_ropes(config),
        "mlp_dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tied,
        "classifier_activation": write_activation(config.head_activation),
        "classifier_bias": config.dense_bias,
        "decoder_bias": config.head_bias,
    }


_TRANSFORM = [*rule("head.dense", "head.dense"), *rule("head.norm", "head.norm")]

MODERNBERT = Family(
    name="modernbert",
    prefix="model.",
    read=read,
    write=write,
    architectures={
        "body": "ModernBertModel",
        "classify": "ModernBertForSequenceClassification",
        "lm": "ModernBertForMaskedLM",
    },
    body=[
        Rule("token.weight", ("embeddings.tok_embeddings.weight",)),
        *rule("embedding_norm", "embeddings.norm"),
        *rule("blocks.{i}.attention_norm", "layers.{i}.attn_norm"),
        *rule("blocks.{i}.attention.qkv", "layers.{i}.attn.Wqkv"),
        *rule("blocks.{i}.attention.out", "layers.{i}.attn.Wo"),
        *rule("blocks.{i}.feedforward_norm", "layers.{i}.mlp_norm"),
        *(
            Rule(
                f"blocks.{{i}}.feedforward.gate.{x},blocks.{{i}}.feedforward.up.{x}",
                (f"layers.{{i}}.mlp.Wi.{x}",),
                "halves",
            )
            for x in ("weight", "bias")
        ),
        *rule("blocks.{i}.feedforward.down", "layers.{i}.mlp.Wo"),
        *rule("final_norm", "final_norm"),
    ],
    heads={
        "classify": [*_TRANSFORM, *rule("head.out", "classifier")],
        "lm": [
            *_TRANSFORM,
            Rule("head.out.weight", ("decoder.weight",)),
            Rule("head.bias", ("decoder.bias",)),
        ],
    },
    poolings={"first": {"classifier_pooling": "cls"}, "mean": {"classifier_pooling": "mean"}},
    unused=(r"^head\.", r"^decoder\.", r"^classifier\."),
)
