"""GPT-NeoX (Black et al. 2022, arXiv:2204.06745) and Pythia: a causal decoder whose attention and feed-forward run side
by side, with rotary positions on a part of each head."""

from typing import Any

from langue.hub.family import Config, Family, Rule, read_activation, rule, take, write_activation
from langue.hub.rope import read_rope, write_rope
from langue.model.config import ModelConfig


def read(config: Config) -> ModelConfig:
    dim, heads = take(config, "hidden_size"), take(config, "num_attention_heads")
    base, part = config.get("rotary_emb_base", 10_000.0), config.get("rotary_pct", 0.25)
    return ModelConfig(
        vocab_size=take(config, "vocab_size"),
        dim=dim,
        n_layers=take(config, "num_hidden_layers"),
        n_heads=heads,
        ffn_dim=take(config, "intermediate_size"),
        max_length=take(config, "max_position_embeddings"),
        norm_place="pre",
        norm_eps=config.get("layer_norm_eps", 1e-5),
        activation=read_activation(config, "hidden_act", "gelu"),
        causal=True,
        embedding_norm=False,
        parallel=config.get("use_parallel_residual", True),
        qkv_bias=config.get("attention_bias", True),
        out_bias=config.get("attention_bias", True),
        **read_rope(config, head_dim=dim // heads, base=base, part=part),
        dropout=config.get("hidden_dropout", 0.0),
        attention_dropout=config.get("attention_dropout", 0.0),
        init_std=config.get("initializer_range", 0.02),
        tied=config.get("tie_word_embeddings", False),
    )


def write(config: ModelConfig) -> dict[str, Any]:
    rope = write_rope(config)
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.ffn_dim,
        "max_position_embeddings": config.max_length,
        "layer_norm_eps": config.norm_eps,
        "hidden_act": write_activation(config.activation),
        "use_parallel_residual": config.parallel,
        "attention_bias": config.has_bias("qkv"),
        "rope_parameters": {"partial_rotary_factor": 1.0} | rope,
        "hidden_dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tied,
    }


GPT_NEOX = Family(
    name="gpt_neox",
    prefix="gpt_neox.",
    read=read,
    write=write,
    architectures={
        "body": "GPTNeoXModel",
        "classify": "GPTNeoXForSequenceClassification",
        "lm": "GPTNeoXForCausalLM",
    },
    body=[
        Rule("token.weight", ("embed_in.weight",)),
        *rule("blocks.{i}.attention_norm", "layers.{i}.input_layernorm"),
        *rule("blocks.{i}.attention.qkv", "layers.{i}.attention.query_key_value", change="heads"),
        *rule("blocks.{i}.attention.out", "layers.{i}.attention.dense"),
        *rule("blocks.{i}.feedforward_norm", "layers.{i}.post_attention_layernorm"),
        *rule("blocks.{i}.feedforward.up", "layers.{i}.mlp.dense_h_to_4h"),
        *rule("blocks.{i}.feedforward.down", "layers.{i}.mlp.dense_4h_to_h"),
        *rule("final_norm", "final_layer_norm"),
    ],
    heads={
        "classify": [Rule("head.out.weight", ("score.weight",))],
        "lm": [Rule("head.out.weight", ("embed_out.weight",))],
    },
    poolings={"last": {}},
    unused=(r"\.attention\.(masked_)?bias$", r"rotary_emb\.inv_freq$", r"^(embed_out|score)\.weight$"),
)
