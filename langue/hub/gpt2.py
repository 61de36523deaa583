"""GPT-2 (Radford et al. 2019) and OpenAI GPT (Radford et al. 2018): causal decoders with learned positions, whose
matrices are stored as (in, out). The first is pre-norm; the older one post-norm and without a final norm."""

from typing import Any

from langue.hub.family import Config, Family, Rule, read_activation, require, rule, take, write_activation
from langue.model.config import ModelConfig


def _read(config: Config, **axes: Any) -> ModelConfig:
    dim = take(config, "n_embd")
    return ModelConfig(
        vocab_size=take(config, "vocab_size"),
        dim=dim,
        n_layers=take(config, "n_layer"),
        n_heads=take(config, "n_head"),
        ffn_dim=config.get("n_inner") or 4 * dim,
        max_length=take(config, "n_positions"),
        norm_eps=config.get("layer_norm_epsilon", 1e-5),
        causal=True,
        embedding_norm=False,
        dropout=config.get("resid_pdrop", 0.1),
        attention_dropout=config.get("attn_pdrop", 0.1),
        init_std=config.get("initializer_range", 0.02),
        tied=config.get("tie_word_embeddings", True),
        **axes,
    )


def _write(config: ModelConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "n_embd": config.dim,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_positions": config.max_length,
        "layer_norm_epsilon": config.norm_eps,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.attention_dropout,
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tied,
    }


def read_gpt2(config: Config) -> ModelConfig:
    require(config, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False, scale_attn_weights=(True, False))
    scale = 0.0 if config.get("scale_attn_weights", True) else 1.0
    activation = read_activation(config, "activation_function", "gelu_new")
    return _read(config, norm_place="pre", activation=activation, attention_scale=scale)


def write_gpt2(config: ModelConfig) -> dict[str, Any]:
    return _write(config) | {
        "n_inner": config.ffn_dim,
        "activation_function": write_activation(config.activation),
        "scale_attn_weights": config.attention_scale != 1.0,
    }


def read_gpt(config: Config) -> ModelConfig:
    require(config, afn=("gelu", "relu", "silu", "swish"), n_inner=(None, 4 * take(config, "n_embd")))
    activation = {"gelu": "gelu_tanh", "swish": "silu"}.get(config.get("afn", "gelu"), config.get("afn", "gelu"))
    return _read(config, norm_place="post", activation=activation)


def write_gpt(config: ModelConfig) -> dict[str, Any]:
    return _write(config) | {"afn": "gelu" if config.activation == "gelu_tanh" else config.activation}


_BLOCKS = [
    *rule("blocks.{i}.attention_norm", "h.{i}.ln_1"),
    *rule("blocks.{i}.attention.qkv", "h.{i}.attn.c_attn", change="transpose"),
    *rule("blocks.{i}.attention.out", "h.{i}.attn.c_proj", change="transpose"),
    *rule("blocks.{i}.feedforward_norm", "h.{i}.ln_2"),
    *rule("blocks.{i}.feedforward.up", "h.{i}.mlp.c_fc", change="transpose"),
    *rule("blocks.{i}.feedforward.down", "h.{i}.mlp.c_proj", change="transpose"),
]
_HEADS = {
    "classify": [Rule("head.out.weight", ("score.weight",))],
    "lm": [Rule("head.out.weight", ("lm_head.weight",))],
}
_UNUSED = (r"\.attn\.(masked_)?bias$", r"^(lm_head|score)\.weight$", r"position_ids$")

GPT2 = Family(
    name="gpt2",
    prefix="transformer.",
    read=read_gpt2,
    write=write_gpt2,
    architectures={"body": "GPT2Model", "classify": "GPT2ForSequenceClassification", "lm": "GPT2LMHeadModel"},
    body=[
        Rule("token.weight", ("wte.weight",)),
        Rule("position.weight", ("wpe.weight",)),
        *_BLOCKS,
        *rule("final_norm", "ln_f"),
    ],
    heads=_HEADS,
    poolings={"last": {}},
    unused=_UNUSED,
)

OPENAI_GPT = Family(
    name="openai-gpt",
    prefix="transformer.",
    read=read_gpt,
    write=write_gpt,
    architectures={
        "body": "OpenAIGPTModel",
        "classify": "OpenAIGPTForSequenceClassification",
        "lm": "OpenAIGPTLMHeadModel",
    },
    body=[
        Rule("token.weight", ("tokens_embed.weight",)),
        Rule("position.weight", ("positions_embed.weight",)),
        *_BLOCKS,
    ],
    heads=_HEADS,
    poolings={"last": {}},
    unused=_UNUSED,
)
