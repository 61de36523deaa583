"""Llama 1-3 (Touvron et al. 2023, arXiv:2302.13971) and Mistral (Jiang et al. 2023,
arXiv:2310.06825), which has windows. qwen.py, mixture.py, gemma.py and others differ from these
only in axes.
"""

from collections.abc import Callable
from typing import Any

from langue.hub.config_keys import USUAL, Config, Names, require, take
from langue.hub.family import DECODING, Family, Rule, classes, rule
from langue.hub.rope import read_rope, read_windows, write_rope_keys, write_window
from langue.model.config import ModelConfig

_NAMES = Names(
    **USUAL,
    norm_eps=("rms_norm_eps", 1e-6),
    activation=("hidden_act", "silu"),
    attention_dropout=("attention_dropout", 0.0),
    init_std=("initializer_range", 0.02),
    tied=("tie_word_embeddings", False),
)


def read(config: Config, *, width: int | None = None, **axes: Any) -> ModelConfig:
    """Read the config. width: of a head, if the config does not give it; axes: those in which a
    family differs from Llama.
    """
    # pretraining_tp is ignored: splitting a matrix product does not change it
    named = _NAMES.read(
        config,
        norm="rms",
        norm_place="pre",
        gated=True,
        bias=False,
        embedding_norm=False,
        dropout=0.0,
    )
    heads = named["n_heads"]
    bias = config.get("attention_bias", False)
    head_dim = config.get("head_dim") or width or named["dim"] // heads
    own = {
        "causal": True,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_width": head_dim,
        "qkv_bias": bias,
        "out_bias": bias,
        "ffn_bias": config.get("mlp_bias", False),
        "attention_dropout": named["attention_dropout"] or 0.0,
    }
    return ModelConfig(**named | own | read_rope(config, head_dim=head_dim) | axes)


def write(config: ModelConfig) -> dict[str, Any]:
    """Return the keys that are common to all families with this `read`."""
    return (
        _NAMES.write(config)
        | {
            "num_key_value_heads": config.n_kv_heads,
            "head_dim": config.head_dim,
        }
        | write_rope_keys(config)
    )


def write_llama(config: ModelConfig) -> dict[str, Any]:
    return write(config) | {
        "attention_bias": config.has_bias("qkv"),
        "mlp_bias": config.has_bias("ffn"),
    }


def read_mistral(config: Config) -> ModelConfig:
    require(config, layer_types=None)
    everywhere = [True] * take(config, "num_hidden_layers")
    windows = read_windows(config, config.get("sliding_window", 4096), everywhere)
    defaults = {"num_key_value_heads": 8}
    return read(defaults | dict(config), windows=windows, qkv_bias=False, out_bias=False)


def write_mistral(config: ModelConfig) -> dict[str, Any]:
    return write(config) | {"sliding_window": write_window(config)}


LAYER = "layers.{i}."
GATED = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}


def parts(ours: str, theirs: str, names: dict[str, str]) -> list[Rule]:
    """Return the rules of several matrices of a sublayer."""
    return [
        each for part, name in names.items() for each in rule(f"{ours}.{part}", f"{theirs}.{name}")
    ]


BODY = [
    Rule("token.weight", ("embed_tokens.weight",)),
    *rule("blocks.{i}.attention_norm", LAYER + "input_layernorm"),
    *rule("blocks.{i}.attention.qkv", *(f"{LAYER}self_attn.{part}_proj" for part in "qkv")),
    *parts("blocks.{i}.attention", LAYER + "self_attn", {part: f"{part}_proj" for part in "qkv"}),
    *rule("blocks.{i}.attention.q_norm", LAYER + "self_attn.q_norm"),
    *rule("blocks.{i}.attention.k_norm", LAYER + "self_attn.k_norm"),
    *rule("blocks.{i}.attention.out", LAYER + "self_attn.o_proj"),
    *rule("blocks.{i}.feedforward_norm", LAYER + "post_attention_layernorm"),
    *parts("blocks.{i}.feedforward", LAYER + "mlp", GATED),
    *rule("final_norm", "norm"),
]


def make(
    name: str,
    stem: str,
    read: Callable[[Config], ModelConfig],
    write: Callable[[ModelConfig], dict[str, Any]],
    more: list[Rule] | None = None,
) -> Family:
    """Return a family with these rules, whose classes begin with `stem`. more: additional rules."""
    return Family(
        name=name,
        prefix="model.",
        read=read,
        write=write,
        architectures=classes(stem, "ForCausalLM"),
        body=[*BODY, *(more or [])],
        heads=DECODING,
        poolings={"last": {}},
        unused=(r"rotary_emb\.inv_freq$", r"^(lm_head|score)\.weight$"),
    )


LLAMA = make("llama", "Llama", read, write_llama)
MISTRAL = make("mistral", "Mistral", read_mistral, write_mistral)
