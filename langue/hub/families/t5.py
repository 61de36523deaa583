"""T5 1.0 and 1.1 (Raffel et al. 2019, arXiv:1910.10683), Flan-T5 and mT5: encoder-decoders with
relative position biases, RMSNorm before each sublayer, no other biases, and unscaled attention
scores. In umT5 (Chung et al. 2023, arXiv:2304.09151) each layer has its own position biases.
"""

from dataclasses import replace
from typing import Any

from langue.errors import ModelError
from langue.hub.config_keys import ACTIVATIONS, Config, Names, own_names, require, write_activation
from langue.hub.family import Family, Rule, rule
from langue.model.config import ANY_LENGTH, ModelConfig


def _activation(config: Config, default: str) -> tuple[Any, bool]:
    """Return the activation of the feed-forward layer, and whether it is gated."""
    named = config.get("feed_forward_proj", default)
    *gate, name = str(named).split("-")
    if gate not in ([], ["gated"]) or name not in ACTIVATIONS:
        raise ModelError(f"config: feed_forward_proj = {named!r} is not known")
    require(
        config, dense_act_fn="gelu_new" if named == "gated-gelu" else name, is_gated_act=bool(gate)
    )
    return "gelu_tanh" if named == "gated-gelu" else ACTIVATIONS[name], bool(gate)


_NAMES = Names(
    vocab_size="vocab_size",
    dim="d_model",
    n_layers="num_layers",
    n_heads="num_heads",
    head_width="d_kv",
    ffn_dim="d_ff",
    norm_eps=("layer_norm_epsilon", 1e-6),
    relative_buckets=("relative_attention_num_buckets", 32),
    relative_distance=("relative_attention_max_distance", 128),
    dropout=("dropout_rate", 0.1),
)


_ALIASES = {
    "hidden_size": "d_model",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
    "head_dim": "d_kv",
}


def _read(config: Config, default: str) -> ModelConfig:
    config = own_names(config, _ALIASES)
    activation, gated = _activation(config, default)
    axes = _NAMES.read(
        config, norm="rms", norm_place="pre", position="relative", bias=False, embedding_norm=False
    )
    alone = any(str(name).endswith("EncoderModel") for name in config.get("architectures") or [])
    return ModelConfig(
        **axes,
        decoder_layers=0 if alone else config.get("num_decoder_layers") or axes["n_layers"],
        max_length=ANY_LENGTH,
        activation=activation,
        gated=gated,
        attention_scale=1.0,
        attention_dropout=axes["dropout"],
        init_std=0.05 * config.get("initializer_factor", 1.0),
    )


def read_t5(config: Config) -> ModelConfig:
    base = _read(config, "relu")
    # Version 1.0 ties the output matrix to the embedding and scales the states for it; 1.1 has a
    # separate output matrix and no scaling.
    scaled = config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True))
    return ModelConfig(**base.to_dict() | {"logit_scale": base.dim**-0.5 if scaled else 1.0})


def read_umt5(config: Config) -> ModelConfig:
    return replace(
        read_t5({"feed_forward_proj": "gated-gelu"} | dict(config)), relative_bias_each=True
    )


def read_mt5(config: Config) -> ModelConfig:
    return _read(config, "gated-gelu")


def write_t5(config: ModelConfig) -> dict[str, Any]:
    gated = (
        "gated-gelu"
        if config.activation == "gelu_tanh"
        else f"gated-{write_activation(config.activation)}"
    )
    return _NAMES.write(config) | {
        "num_decoder_layers": config.decoder_layers or config.n_layers,
        "d_kv": config.head_dim,
        "feed_forward_proj": gated if config.gated else write_activation(config.activation),
        "initializer_factor": config.init_std / 0.05,
        "is_encoder_decoder": config.decoder_layers > 0,
        "tie_word_embeddings": config.logit_scale != 1.0,
    }


def _side(ours: str, theirs: str, attention: list[tuple[str, str]], last: int) -> list[Rule]:
    block = f"{ours}blocks.{{i}}."
    them = f"{theirs}.block.{{i}}.layer."
    bias = "layer.0.SelfAttention.relative_attention_bias.weight"
    rules = [
        Rule(f"{ours}bias.table.weight", (f"{theirs}.block.0.{bias}",)),
        Rule(f"{block}bias.table.weight", (f"{theirs}.block.{{i}}.{bias}",)),
    ]
    for index, (name, published) in enumerate(attention):
        own = f"{block}{name}"
        their = f"{them}{index}.{published}"
        joined = "qkv" if name == "attention" else "kv"
        rules += rule(f"{own}.{joined}", *(f"{their}.{part}" for part in joined))
        rules += rule(f"{own}.q", f"{their}.q") if name == "cross" else []
        rules += rule(f"{own}.out", f"{their}.o") + rule(f"{own}_norm", f"{them}{index}.layer_norm")
    dense = f"{them}{last}.DenseReluDense."
    return [
        *rules,
        *rule(f"{block}feedforward_norm", f"{them}{last}.layer_norm"),
        Rule(f"{block}feedforward.up.weight", (dense + "wi.weight",), when=("gated", False)),
        Rule(f"{block}feedforward.gate.weight", (dense + "wi_0.weight",)),
        Rule(f"{block}feedforward.up.weight", (dense + "wi_1.weight",), when=("gated", True)),
        *rule(f"{block}feedforward.down", dense + "wo"),
        *rule(f"{ours}final_norm", f"{theirs}.final_layer_norm"),
    ]


_TABLES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


def _family(name: str, stem: str, read: Any) -> Family:
    return Family(
        name=name,
        prefix="",
        read=read,
        write=write_t5,
        architectures={
            **{"body": f"{stem}Model", "encoder": f"{stem}EncoderModel"},
            "lm": f"{stem}ForConditionalGeneration",
        },
        body=[
            Rule("token.weight", ("shared.weight",), tied=_TABLES),
            *_side("", "encoder", [("attention", "SelfAttention")], 1),
            *_side(
                "decoder.",
                "decoder",
                [("attention", "SelfAttention"), ("cross", "EncDecAttention")],
                2,
            ),
        ],
        heads={"lm": [Rule("head.out.weight", ("lm_head.weight",))]},
        outputs={
            "sequence": "classification_head.out_proj.weight",
            "span": "qa_outputs.weight",
        },
        unused=(
            r"^lm_head\.weight$",
            r"^(en|de)coder\.embed_tokens\.weight$",
            r"EncDecAttention\.relative_attention_bias",
        ),
    )


T5 = _family("t5", "T5", read_t5)
MT5 = _family("mt5", "MT5", read_mt5)
UMT5 = _family("umt5", "UMT5", read_umt5)
