"""gpt-oss (OpenAI 2025, arXiv:2508.10925): Llama with a mixture of experts, windows in every other
layer, and attention sinks. All experts of a layer are published as one tensor, mostly in MXFP4.
"""

from typing import Any

from langue.errors import ModelError
from langue.hub.config_keys import Config, own_names, require, take
from langue.hub.families import llama
from langue.hub.families.llama import LAYER
from langue.hub.family import Rule, rule
from langue.hub.rope import read_windows, write_layer_types, write_window
from langue.model.config import ModelConfig

_ALPHA = 1.702  # the factor in gelu_quick
_ROPE = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
_DEFAULTS = {
    "head_dim": 64,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 150_000.0,
    "attention_bias": True,
}


def read(config: Config) -> ModelConfig:
    config = own_names(config, {"num_experts": "num_local_experts"})
    require(config, hidden_act="silu", swiglu_alpha=_ALPHA)
    limit = float(config.get("swiglu_limit", 7.0))
    if limit <= 0:
        raise ModelError(f"config: swiglu_limit = {limit} is not above zero")
    says_rope = config.get("rope_parameters") or config.get("rope_scaling")
    every_other = [i % 2 == 0 for i in range(take(config, "num_hidden_layers"))]
    return llama.read(
        _DEFAULTS | dict(config) | ({} if says_rope else {"rope_parameters": _ROPE}),
        windows=read_windows(config, config.get("sliding_window", 128), every_other),
        attention_sinks=True,
        activation="gelu_quick",
        gated_limit=limit,
        gated_offset=1.0,
        ffn_bias=True,
        n_experts=config.get("num_local_experts", 128),
        experts_per_token=config.get("num_experts_per_tok", 4),
        router_bias=True,
    )


def write(config: ModelConfig) -> dict[str, Any]:
    return llama.write(config) | {
        "attention_bias": config.has_bias("qkv"),
        "hidden_act": "silu",
        "layer_types": write_layer_types(config),
        "sliding_window": write_window(config),
        "num_local_experts": config.n_experts,
        "num_experts_per_tok": config.experts_per_token,
        "swiglu_alpha": _ALPHA,
        "swiglu_limit": config.gated_limit,
    }


def _experts(theirs: str, *maps: str) -> list[Rule]:
    """Return the rules of the experts' maps in one published tensor, and of their biases."""
    rules = []
    for kind, ending in (("weight", ""), ("bias", "_bias")):
        ours = [f"blocks.{{i}}.feedforward.experts.{{e}}.{each}.{kind}" for each in maps]
        rules.append(Rule(",".join(ours), (f"{LAYER}mlp.experts.{theirs}{ending}",), "experts"))
    return rules


_MIXTURE = [
    Rule("blocks.{i}.attention.sinks", (LAYER + "self_attn.sinks",)),
    *rule("blocks.{i}.feedforward.router", LAYER + "mlp.router"),
    *_experts("gate_up_proj", "gate", "up"),
    *_experts("down_proj", "down"),
]

GPT_OSS = llama.make("gpt_oss", "GptOss", read, write, _MIXTURE)
