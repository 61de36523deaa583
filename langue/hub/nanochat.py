"""nanochat (Karpathy 2025, github.com/karpathy/nanochat): a decoder with what the speed-run records of GPT-2's training
show to pay: norms without weights, normalised queries and keys, squared ReLU, capped logits (Jordan et al. 2024,
github.com/KellerJordan/modded-nanogpt). It is what `langue pretrain` makes for small budgets."""

from typing import Any

from langue.errors import ModelError
from langue.hub.family import Config, Family, Rule, read_activation, rule, take, write_activation
from langue.hub.rope import read_rope, write_rope
from langue.model.config import ModelConfig


def read(config: Config) -> ModelConfig:
    dim, heads = take(config, "hidden_size"), take(config, "num_attention_heads")
    head_dim = config.get("head_dim") or dim // heads
    bias = config.get("attention_bias", False)
    axes = dict(
        vocab_size=take(config, "vocab_size"),
        dim=dim,
        n_layers=take(config, "num_hidden_layers"),
        n_heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_width=head_dim,
        ffn_dim=take(config, "intermediate_size"),
        max_length=take(config, "max_position_embeddings"),
        norm="rms_plain",
        norm_place="pre",
        norm_eps=config.get("rms_norm_eps", 1e-6),
        activation=read_activation(config, "hidden_act", "relu2"),
        bias=False,
        qkv_bias=bias,
        out_bias=bias,
        causal=True,
        qk_norm=True,
        embedding_norm=True,
        dropout=0.0,
        attention_dropout=config.get("attention_dropout") or 0.0,
        init_std=config.get("initializer_range", 0.02),
        tied=config.get("tie_word_embeddings", False),
        logit_cap=config.get("final_logit_softcapping", 15.0) or 0.0,
    )
    rope = read_rope(config, head_dim=head_dim)
    if rope.get("rotary_scaling") == "yarn":  # there the norm comes after the turn, and takes YaRN's amplitude out
        raise ModelError("config: rope_type = 'yarn' is not supported for this family")
    return ModelConfig(**axes | rope)


def write(config: ModelConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.ffn_dim,
        "max_position_embeddings": config.max_length,
        "rms_norm_eps": config.norm_eps,
        "hidden_act": write_activation(config.activation),
        "attention_bias": config.has_bias("qkv"),
        "attention_dropout": config.attention_dropout,
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tied,
        "final_logit_softcapping": config.logit_cap or None,
        "rope_parameters": write_rope(config),
    }


_ATTENTION, _QKV = "blocks.{i}.attention.", [f"layers.{{i}}.self_attn.{part}_proj" for part in "qkv"]

NANOCHAT = Family(
    name="nanochat",
    prefix="model.",
    read=read,
    write=write,
    architectures={"body": "NanoChatModel", "lm": "NanoChatForCausalLM"},
    body=[
        Rule("token.weight", ("embed_tokens.weight",)),
        *rule(_ATTENTION + "qkv", *_QKV, change="reversed"),
        *rule(_ATTENTION + "q", _QKV[0], change="reversed"),
        *rule(_ATTENTION + "k", _QKV[1], change="reversed"),
        *rule(_ATTENTION + "v", _QKV[2]),
        *rule(_ATTENTION + "out", "layers.{i}.self_attn.o_proj"),
        Rule("blocks.{i}.feedforward.up.weight", ("layers.{i}.mlp.fc1.weight",)),
        Rule("blocks.{i}.feedforward.down.weight", ("layers.{i}.mlp.fc2.weight",)),
    ],
    heads={"lm": [Rule("head.out.weight", ("lm_head.weight",))]},
    unused=(r"rotary_emb\.inv_freq$", r"^lm_head\.weight$"),
)
