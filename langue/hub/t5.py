"""T5 1.0 and 1.1 (Raffel et al. 2019, arXiv:1910.10683), Flan-T5 and mT5: encoder-decoders with relative-position
biases, RMSNorm before each sublayer, no other biases, and unscaled attention."""

from typing import Any

from langue.errors import ModelError
from langue.hub.family import _ACTIVATIONS, Config, Family, Rule, rule, take, write_activation
from langue.model.config import ANY_LENGTH, ModelConfig


def _activation(config: Config, default: str) -> tuple[Any, bool]:
    """The feed-forward's activation and whether it is gated."""
    named = config.get("feed_forward_proj", default)
    *gate, name = str(named).split("-")
    if gate not in ([], ["gated"]) or name not in _ACTIVATIONS:
        raise ModelError(f"config: feed_forward_proj = {named!r} is not known")
    return "gelu_tanh" if named == "gated-gelu" else _ACTIVATIONS[name], bool(gate)


def _read(config: Config, default: str) -> ModelConfig:
    activation, gated = _activation(config, default)
    layers = take(config, "num_layers")
    return ModelConfig(
        vocab_size=take(config, "vocab_size"),
        dim=take(config, "d_model"),
        n_layers=layers,
        decoder_layers=config.get("num_decoder_layers") or layers,
        n_heads=take(config, "num_heads"),
        head_width=take(config, "d_kv"),
        ffn_dim=take(config, "d_ff"),
        max_length=ANY_LENGTH,
        norm="rms",
        norm_place="pre",
        norm_eps=config.get("layer_norm_epsilon", 1e-6),
        position="relative",
        relative_buckets=config.get("relative_attention_num_buckets", 32),
        relative_distance=config.get("relative_attention_max_distance", 128),
        activation=activation,
        gated=gated,
        bias=False,
        attention_scale=1.0,
        embedding_norm=False,
        dropout=config.get("dropout_rate", 0.1),
        attention_dropout=config.get("dropout_rate", 0.1),
        init_std=0.05 * config.get("initializer_factor", 1.0),
    )


def read_t5(config: Config) -> ModelConfig:
    base = _read(config, "relu")
    # Version 1.0 shares its embedding with the output and scales for it; 1.1 has a matrix of its own and does not.
    scaled = config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True))
    return ModelConfig(**base.to_dict() | {"logit_scale": base.dim**-0.5 if scaled else 1.0})


def read_mt5(config: Config) -> ModelConfig:
    return _read(config, "gated-gelu")


def write_t5(config: ModelConfig) -> dict[str, Any]:
    gated = "gated-gelu" if config.activation == "gelu_tanh" else f"gated-{write_activation(config.activation)}"
    return {
        "vocab_size": config.vocab_size,
        "d_model": config.dim,
        "num_layers": config.n_layers,
        "num_decoder_layers": config.decoder_layers,
        "num_heads": config.n_heads,
        "d_kv": config.head_dim,
        "d_ff": config.ffn_dim,
        "layer_norm_epsilon": config.norm_eps,
        "relative_attention_num_buckets": config.relative_buckets,
        "relative_attention_max_distance": config.relative_distance,
        "feed_forward_proj": gated if config.gated else write_activation(config.activation),
        "dropout_rate": config.dropout,
        "initializer_factor": config.init_std / 0.05,
        "is_encoder_decoder": True,
        "tie_word_embeddings": config.logit_scale != 1.0,
    }


def _side(ours: str, theirs: str, attention: list[tuple[str, str]], last: int) -> list[Rule]:
    block, them = f"{ours}blocks.{{i}}.", f"{theirs}.block.{{i}}.layer."
    rules = [
        Rule(f"{ours}bias.table.weight", (f"{theirs}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",))
    ]
    for index, (name, published) in enumerate(attention):
        own, their = f"{block}{name}", f"{them}{index}.{published}"
        joined = "qkv" if name == "attention" else "kv"
        rules += rule(f"{own}.{joined}", *(f"{their}.{part}" for part in joined))
        rules += rule(f"{own}.q", f"{their}.q") if name == "cross" else []
        rules += rule(f"{own}.out", f"{their}.o") + rule(f"{own}_norm", f"{them}{index}.layer_norm")
    dense = f"{them}{last}.DenseReluDense."
    return [
        *rules,
        *rule(f"{block}feedforward_norm", f"{them}{last}.layer_norm"),
        Rule(f"{block}feedforward.up.weight", (dense + "wi.weight",), when=lambda c: not c.gated),
        Rule(f"{block}feedforward.gate.weight", (dense + "wi_0.weight",)),
        Rule(f"{block}feedforward.up.weight", (dense + "wi_1.weight",), when=lambda c: c.gated),
        *rule(f"{block}feedforward.down", dense + "wo"),
        *rule(f"{ours}final_norm", f"{theirs}.final_layer_norm"),
    ]


def _family(name: str, stem: str, read: Any) -> Family:
    return Family(
        name=name,
        prefix="",
        read=read,
        write=write_t5,
        architectures={"body": f"{stem}Model", "lm": f"{stem}ForConditionalGeneration"},
        body=[
            Rule("token.weight", ("shared.weight",)),
            *_side("", "encoder", [("attention", "SelfAttention")], 1),
            *_side("decoder.", "decoder", [("attention", "SelfAttention"), ("cross", "EncDecAttention")], 2),
        ],
        heads={"lm": [Rule("head.out.weight", ("lm_head.weight",))]},
        unused=(
            r"^lm_head\.weight$",
            r"^(en|de)coder\.embed_tokens\.weight$",
            r"EncDecAttention\.relative_attention_bias",
        ),
    )


T5 = _family("t5", "T5", read_t5)
MT5 = _family("mt5", "MT5", read_mt5)
