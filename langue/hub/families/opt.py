"""OPT (Zhang et al. 2022, arXiv:2205.01068): a causal decoder close to GPT-2, with ReLU and learned
positions that begin at row 2; the model with 350 million parameters is post-norm and has a
factorised embedding.
"""

from typing import Any

from langue.hub.config_keys import Config, Names, require, take
from langue.hub.family import DECODING, Family, Rule, classes, rule
from langue.model.config import ModelConfig

_NAMES = Names(
    vocab_size="vocab_size",
    dim="hidden_size",
    n_layers="num_hidden_layers",
    n_heads="num_attention_heads",
    ffn_dim="ffn_dim",
    max_length="max_position_embeddings",
    activation=("activation_function", "relu"),
    bias=("enable_bias", True),
    dropout=("dropout", 0.1),
    attention_dropout=("attention_dropout", 0.0),
    init_std=("init_std", 0.02),
    tied=("tie_word_embeddings", True),
)


def read(config: Config) -> ModelConfig:
    require(config, layer_norm_elementwise_affine=True)
    wide = take(config, "hidden_size")
    own = config.get("word_embed_proj_dim") or wide
    narrow = own != wide
    before = config.get("do_layer_norm_before", True)
    return ModelConfig(
        **_NAMES.read(config),
        norm_place="pre" if before else "post",
        final_norm=before and not config.get("_remove_final_layer_norm", False),
        embedding_dim=own if narrow else 0,
        widen_bias=False,
        position_widened=narrow,
        narrowed=narrow,
        norm_bias=True,
        norm_eps=1e-5,
        position_offset=2,
        embedding_norm=False,
        causal=True,
    )


def write(config: ModelConfig) -> dict[str, Any]:
    return _NAMES.write(config) | {
        "word_embed_proj_dim": config.out_dim,
        "do_layer_norm_before": config.norm_place == "pre",
        "_remove_final_layer_norm": config.norm_place == "pre" and not config.has_final_norm,
    }


_LAYER = "decoder.layers.{i}."

OPT = Family(
    name="opt",
    prefix="model.",
    read=read,
    write=write,
    architectures=classes("OPT", "ForCausalLM"),
    body=[
        Rule("token.weight", ("decoder.embed_tokens.weight",)),
        Rule("position.weight", ("decoder.embed_positions.weight",)),
        *rule("blocks.{i}.attention_norm", _LAYER + "self_attn_layer_norm"),
        *rule("blocks.{i}.attention.qkv", *(f"{_LAYER}self_attn.{part}_proj" for part in "qkv")),
        *rule("blocks.{i}.attention.out", _LAYER + "self_attn.out_proj"),
        *rule("blocks.{i}.feedforward_norm", _LAYER + "final_layer_norm"),
        *rule("blocks.{i}.feedforward.up", _LAYER + "fc1"),
        *rule("blocks.{i}.feedforward.down", _LAYER + "fc2"),
        *rule("final_norm", "decoder.final_layer_norm"),
        *rule("widen", "decoder.project_in"),
        *rule("narrow", "decoder.project_out"),
    ],
    heads=DECODING,
    poolings={"last": {}},
    unused=(r"^(lm_head|score)\.weight$",),
)
