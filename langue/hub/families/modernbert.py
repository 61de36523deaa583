"""ModernBERT (Warner et al. 2024, arXiv:2412.13663): a pre-norm encoder with rotary positions,
windows in most layers, and GeGLU.
"""

from typing import Any

from langue.hub.config_keys import USUAL, Config, Names, own_names, require
from langue.hub.family import Family, Rule, classes, rule
from langue.hub.rope import read_two_ropes, read_windows, write_layer_types, write_two_ropes
from langue.model.config import ModelConfig

_NAMES = Names(
    **USUAL,
    norm_eps=("norm_eps", 1e-5),
    norm_bias=("norm_bias", False),
    activation=("hidden_activation", "gelu"),
    qkv_bias=("attention_bias", False),
    ffn_bias=("mlp_bias", False),
    dropout=("mlp_dropout", 0.0),
    attention_dropout=("attention_dropout", 0.0),
    init_std=("initializer_range", 0.02),
    tied=("tie_word_embeddings", True),
    head_activation=("classifier_activation", "gelu"),
    dense_bias=("classifier_bias", False),
    head_bias=("decoder_bias", True),
)


_ALIASES = {"rope_theta": "global_rope_theta"}  # of transformers 4; version 5 ignores it


def read(config: Config) -> ModelConfig:
    config = own_names(config, _ALIASES)
    require(config, rope_scaling=None)  # it would also apply to layers with a window
    axes = _NAMES.read(
        config,
        norm_place="pre",
        gated=True,
        first_norm=False,
        head_transform=True,
        classifier_transform=True,
    )
    every = config.get("global_attn_every_n_layers", 3)
    # `local_attention` counts both sides; a token attends to half of it on the left, to itself, and
    # to half of it on the right.
    window = config.get("local_attention", 128) // 2 + 1
    axes["windows"] = read_windows(config, window, [i % every > 0 for i in range(axes["n_layers"])])
    old = ("global_rope_theta", "local_rope_theta")
    width = axes["dim"] // axes["n_heads"]
    axes |= read_two_ropes(config, head_dim=width, bases=(160_000.0, 10_000.0), old=old)
    return ModelConfig(**axes, out_bias=axes["qkv_bias"])


def write(config: ModelConfig) -> dict[str, Any]:
    return _NAMES.write(config) | {
        "norm_bias": config.has_bias("norm"),
        "attention_bias": config.has_bias("qkv"),
        "mlp_bias": config.has_bias("ffn"),
        "layer_types": write_layer_types(config),
        # the pattern in the form that transformers 4 reads
        "global_attn_every_n_layers": _every(config),
        "local_attention": 2 * (max(config.windows, default=65) - 1),
        "rope_parameters": write_two_ropes(config),
        # the two bases in the form that transformers 4 reads
        "global_rope_theta": config.rotary_base,
        "local_rope_theta": config.rotary_local_base,
    }


def _every(config: ModelConfig) -> int:
    """Return n if every n-th layer has global attention; the pattern of windows begins with such a
    layer.
    """
    whole = [i for i in range(1, config.n_layers) if not config.window(i)]
    return whole[0] if whole else config.n_layers


_FEEDFORWARD = "blocks.{i}.feedforward."
_KINDS = ("weight", "bias")
_TRANSFORM = [*rule("head.dense", "head.dense"), *rule("head.norm", "head.norm")]

MODERNBERT = Family(
    name="modernbert",
    prefix="model.",
    read=read,
    write=write,
    architectures=classes("ModernBert", "ForMaskedLM"),
    body=[
        Rule("token.weight", ("embeddings.tok_embeddings.weight",)),
        *rule("embedding_norm", "embeddings.norm"),
        *rule("blocks.{i}.attention_norm", "layers.{i}.attn_norm"),
        *rule("blocks.{i}.attention.qkv", "layers.{i}.attn.Wqkv"),
        *rule("blocks.{i}.attention.out", "layers.{i}.attn.Wo"),
        *rule("blocks.{i}.feedforward_norm", "layers.{i}.mlp_norm"),
        *(
            Rule(
                f"{_FEEDFORWARD}gate.{x},{_FEEDFORWARD}up.{x}",
                (f"layers.{{i}}.mlp.Wi.{x}",),
                "halves",
            )
            for x in _KINDS
        ),
        *rule(_FEEDFORWARD + "down", "layers.{i}.mlp.Wo"),
        *rule("final_norm", "final_norm"),
    ],
    heads={
        "sequence": [*_TRANSFORM, *rule("head.out", "classifier")],
        "lm": [
            *_TRANSFORM,
            Rule("head.out.weight", ("decoder.weight",)),
            Rule("head.bias", ("decoder.bias",)),
        ],
    },
    poolings={"first": {"classifier_pooling": "cls"}, "mean": {"classifier_pooling": "mean"}},
    unused=(r"^head\.", r"^decoder\.", r"^classifier\."),
)
