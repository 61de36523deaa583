"""BLOOM (Scao et al. 2022, arXiv:2211.05100): a causal decoder without positions in its embedding, which is normed;
what is far away counts less, by a fixed slope a head (ALiBi)."""

from typing import Any

from langue.hub.family import Config, Family, Rule, require, rule, take
from langue.model.config import ModelConfig


def read(config: Config) -> ModelConfig:
    require(config, apply_residual_connection_post_layernorm=False)
    dim = config.get("n_embed") or take(config, "hidden_size")
    return ModelConfig(
        vocab_size=take(config, "vocab_size"),
        dim=dim,
        n_layers=take(config, "n_layer"),
        n_heads=take(config, "n_head"),
        ffn_dim=4 * dim,
        max_length=config.get("seq_length", 2048),
        norm_place="pre",
        norm_eps=config.get("layer_norm_epsilon", 1e-5),
        position="alibi",
        activation="gelu_tanh",
        causal=True,
        dropout=config.get("hidden_dropout", 0.0),
        attention_dropout=config.get("attention_dropout", 0.0),
        init_std=config.get("initializer_range", 0.02),
        tied=config.get("tie_word_embeddings", True),
    )


def write(config: ModelConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "seq_length": config.max_length,
        "layer_norm_epsilon": config.norm_eps,
        "hidden_dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tied,
    }


BLOOM = Family(
    name="bloom",
    prefix="transformer.",
    read=read,
    write=write,
    architectures={"body": "BloomModel", "classify": "BloomForSequenceClassification", "lm": "BloomForCausalLM"},
    body=[
        Rule("token.weight", ("word_embeddings.weight",)),
        *rule("embedding_norm", "word_embeddings_layernorm"),
        *rule("blocks.{i}.attention_norm", "h.{i}.input_layernorm"),
        *rule("blocks.{i}.attention.qkv", "h.{i}.self_attention.query_key_value", change="heads"),
        *rule("blocks.{i}.attention.out", "h.{i}.self_attention.dense"),
        *rule("blocks.{i}.feedforward_norm", "h.{i}.post_attention_layernorm"),
        *rule("blocks.{i}.feedforward.up", "h.{i}.mlp.dense_h_to_4h"),
        *rule("blocks.{i}.feedforward.down", "h.{i}.mlp.dense_4h_to_h"),
        *rule("final_norm", "ln_f"),
    ],
    heads={
        "classify": [Rule("head.out.weight", ("score.weight",))],
        "lm": [Rule("head.out.weight", ("lm_head.weight",))],
    },
    poolings={"last": {}},
    unused=(r"^(lm_head|score)\.weight$",),
)
