"""Llama 1-3 (Touvron et al. 2023, arXiv:2302.13971) and Mistral (Jiang et al. 2023, arXiv:2310.06825), which has
windows. What qwen.py, mixture.py and gemma.py differ from by axes."""

from collections.abc import Callable
from typing import Any

from langue.hub.family import Config, Family, Rule, read_activation, require, rule, take, write_activation
from langue.hub.rope import read_rope, read_windows, write_rope, write_window
from langue.model.config import ModelConfig


def read(config: Config, *, width: int | None = None, **axes: Any) -> ModelConfig:
    """width: of a head, where the config does not say it; axes: what a family has otherwise than Llama."""
    dim, heads = take(config, "hidden_size"), take(config, "num_attention_heads")
    head_dim = config.get("head_dim") or width or dim // heads
    bias = config.get("attention_bias", False)
    require(config, pretraining_tp=(None, 1))
    common = dict(
        vocab_size=take(config, "vocab_size"),
        dim=dim,
        n_layers=take(config, "num_hidden_layers"),
        n_heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_width=head_dim,
        ffn_dim=take(config, "intermediate_size"),
        max_length=take(config, "max_position_embeddings"),
        norm="rms",
        norm_place="pre",
        norm_eps=config.get("rms_norm_eps", 1e-6),
        activation=read_activation(config, "hidden_act", "silu"),
        gated=True,
        bias=False,
        qkv_bias=bias,
        out_bias=bias,
        ffn_bias=config.get("mlp_bias", False),
        causal=True,
        embedding_norm=False,
        dropout=0.0,
        attention_dropout=config.get("attention_dropout") or 0.0,
        init_std=config.get("initializer_range", 0.02),
        tied=config.get("tie_word_embeddings", False),
    )
    return ModelConfig(**common | read_rope(config, head_dim=head_dim) | axes)


def write(config: ModelConfig) -> dict[str, Any]:
    """What all that are read so have in common."""
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
        "rope_parameters": write_rope(config),
        "attention_dropout": config.attention_dropout,
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tied,
    }


def write_llama(config: ModelConfig) -> dict[str, Any]:
    return write(config) | {"attention_bias": config.has_bias("qkv"), "mlp_bias": config.has_bias("ffn")}


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
    """The rules of a gated feed-forward."""
    return [each for part, name in names.items() for each in rule(f"{ours}.{part}", f"{theirs}.{name}")]


BODY = [
    Rule("token.weight", ("embed_tokens.weight",)),
    *rule("blocks.{i}.attention_norm", LAYER + "input_layernorm"),
    *rule("blocks.{i}.attention.qkv", *(f"{LAYER}self_attn.{part}_proj" for part in "qkv")),
    *(each for part in "qkv" for each in rule(f"blocks.{{i}}.attention.{part}", f"{LAYER}self_attn.{part}_proj")),
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
    """A family of these rules, whose classes begin with `stem`. more: rules beside."""
    return Family(
        name=name,
        prefix="model.",
        read=read,
        write=write,
        architectures={
            "body": f"{stem}Model",
            "classify": f"{stem}ForSequenceClassification",
            "lm": f"{stem}ForCausalLM",
        },
        body=[*BODY, *(more or [])],
        heads={
            "classify": [Rule("head.out.weight", ("score.weight",))],
            "lm": [Rule("head.out.weight", ("lm_head.weight",))],
        },
        poolings={"last": {}},
        unused=(r"rotary_emb\.inv_freq$", r"^(lm_head|score)\.weight$"),
    )


LLAMA = make("llama", "Llama", read, write_llama)
MISTRAL = make("mistral", "Mistral", read_mistral, write_mistral)
