"""GPT-2 (Radford et al. 2019) and OpenAI GPT (Radford et al. 2018): causal decoders with learned
positions, whose matrices are stored as (in, out). GPT-2 is pre-norm; GPT is post-norm and has no
final norm. StarCoder (Li et al. 2023, arXiv:2305.06161) is GPT-2 with a single head of keys and
values, and with matrices stored as (out, in).
"""

from dataclasses import replace
from typing import Any

from langue.hub.config_keys import (
    Config,
    Names,
    own_names,
    read_activation,
    require,
    take,
    write_activation,
)
from langue.hub.family import DECODING, Family, Rule, classes, rule
from langue.model.config import ModelConfig

_NAMES = Names(
    vocab_size="vocab_size",
    dim="n_embd",
    n_layers="n_layer",
    n_heads="n_head",
    max_length="n_positions",
    norm_eps=("layer_norm_epsilon", 1e-5),
    dropout=("resid_pdrop", 0.1),
    attention_dropout=("attn_pdrop", 0.1),
    init_std=("initializer_range", 0.02),
    tied=("tie_word_embeddings", True),
)


ALIASES = {
    "max_position_embeddings": "n_positions",
    "hidden_size": "n_embd",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}


def _read(config: Config, **axes: Any) -> ModelConfig:
    named = _NAMES.read(config)
    wide = config.get("n_inner") or 4 * named["dim"]
    return ModelConfig(**named, **axes, ffn_dim=wide, causal=True, embedding_norm=False)


def _write(config: ModelConfig) -> dict[str, Any]:
    return _NAMES.write(config) | {"embd_pdrop": config.dropout}


def read_gpt2(config: Config) -> ModelConfig:
    config = own_names(config, ALIASES)
    require(
        config,
        add_cross_attention=False,
        scale_attn_weights=(True, False),
    )
    scale = 0.0 if config.get("scale_attn_weights", True) else 1.0
    activation = read_activation(config, "activation_function", "gelu_new")
    # reorder_and_upcast_attn only affects rounding in 16 bits, so it is ignored
    return _read(
        config,
        norm_place="pre",
        activation=activation,
        attention_scale=scale,
        scores_by_layer=bool(config.get("scale_attn_by_inverse_layer_idx", False)),
    )


def write_gpt2(config: ModelConfig) -> dict[str, Any]:
    return _write(config) | {
        "n_inner": config.ffn_dim,
        "activation_function": write_activation(config.activation),
        "scale_attn_weights": config.attention_scale != 1.0,
        "scale_attn_by_inverse_layer_idx": config.scores_by_layer,
    }


def read_bigcode(config: Config) -> ModelConfig:
    base = read_gpt2({"activation_function": "gelu_pytorch_tanh"} | dict(config))
    base = replace(base, scores_by_layer=False)  # GPT-2's key, which StarCoder's code ignores
    return replace(base, kv_heads=1) if config.get("multi_query", True) else base


def write_bigcode(config: ModelConfig) -> dict[str, Any]:
    return write_gpt2(config) | {"multi_query": config.n_kv_heads < config.n_heads}


def read_gpt(config: Config) -> ModelConfig:
    config = own_names(config, ALIASES)
    require(
        config, afn=("gelu", "relu", "silu", "swish"), n_inner=(None, 4 * take(config, "n_embd"))
    )
    activation = {"gelu": "gelu_tanh", "swish": "silu"}.get(
        config.get("afn", "gelu"), config.get("afn", "gelu")
    )
    return _read(config, norm_place="post", activation=activation)


def write_gpt(config: ModelConfig) -> dict[str, Any]:
    return _write(config) | {
        "afn": "gelu" if config.activation == "gelu_tanh" else config.activation
    }


_BLOCKS = [
    *rule("blocks.{i}.attention_norm", "h.{i}.ln_1"),
    *rule("blocks.{i}.attention.qkv", "h.{i}.attn.c_attn", change="transpose"),
    *rule("blocks.{i}.attention.out", "h.{i}.attn.c_proj", change="transpose"),
    *rule("blocks.{i}.feedforward_norm", "h.{i}.ln_2"),
    *rule("blocks.{i}.feedforward.up", "h.{i}.mlp.c_fc", change="transpose"),
    *rule("blocks.{i}.feedforward.down", "h.{i}.mlp.c_proj", change="transpose"),
]


_QKV = "h.{i}.attn.c_attn."
_ATTENTION = "blocks.{i}.attention."
_BIGCODE = [  # matrices as (out, in); separate rules if there is a single head of keys
    *(replace(r, change="") for r in _BLOCKS if "qkv" not in r.ours),
    *rule(_ATTENTION + "qkv", _QKV[:-1], change="heads"),
    *(
        Rule(",".join(f"{_ATTENTION}{part}.{kind}" for part in "qkv"), (_QKV + kind,), "heads")
        for kind in ("weight", "bias")
    ),
]


def _family(
    name: str,
    stem: str,
    read: Any,
    write: Any,
    body: list[Rule],
    *,
    blocks: list[Rule] = _BLOCKS,
    lm: str = "LMHeadModel",
) -> Family:
    return Family(
        name=name,
        prefix="transformer.",
        read=read,
        write=write,
        architectures=classes(stem, lm),
        body=[*blocks, *body],
        heads=DECODING,
        poolings={"last": {}},
        unused=(r"\.attn\.(masked_)?bias$", r"^(lm_head|score)\.weight$", r"position_ids$"),
    )


_GPT2 = [
    Rule("token.weight", ("wte.weight",)),
    Rule("position.weight", ("wpe.weight",)),
    *rule("final_norm", "ln_f"),
]
_GPT = [
    Rule("token.weight", ("tokens_embed.weight",)),
    Rule("position.weight", ("positions_embed.weight",)),
]

GPT2 = _family("gpt2", "GPT2", read_gpt2, write_gpt2, _GPT2)
GPT_BIGCODE = _family(
    *("gpt_bigcode", "GPTBigCode", read_bigcode, write_bigcode, _GPT2),
    blocks=_BIGCODE,
    lm="ForCausalLM",
)
OPENAI_GPT = _family("openai-gpt", "OpenAIGPT", read_gpt, write_gpt, _GPT)
