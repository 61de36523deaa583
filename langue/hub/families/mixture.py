"""Mixtral (Jiang et al. 2024, arXiv:2401.04088) and Qwen's mixtures of experts (arXiv:2407.10671,
arXiv:2505.09388): Llama with a router and experts in place of the feed-forward layer.
"""

from typing import Any

from langue.hub.config_keys import Config, own_names, require, take
from langue.hub.families import llama
from langue.hub.families.llama import GATED, LAYER, parts
from langue.hub.family import rule
from langue.hub.rope import read_windows, write_window
from langue.model.config import ModelConfig


def read_mixtral(config: Config) -> ModelConfig:
    config = own_names(config, {"num_experts": "num_local_experts"})
    require(config, router_jitter_noise=(0, 0.0))
    windows = read_windows(
        config, config.get("sliding_window"), [True] * take(config, "num_hidden_layers")
    )
    defaults = {"num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1_000_000.0}
    return llama.read(
        defaults | dict(config),
        windows=windows,
        n_experts=config.get("num_local_experts", 8),
        experts_per_token=config.get("num_experts_per_tok", 2),
    )


def write_mixtral(config: ModelConfig) -> dict[str, Any]:
    mixture = {
        "num_local_experts": config.n_experts,
        "num_experts_per_tok": config.experts_per_token,
    }
    return llama.write(config) | {"sliding_window": write_window(config)} | mixture


def _read_qwen(config: Config, **axes: Any) -> ModelConfig:
    # The rules below cannot express models in which only some layers have experts, or windows.
    require(config, decoder_sparse_step=1, mlp_only_layers=(None, []), use_sliding_window=False)
    return llama.read(
        {**config, "intermediate_size": take(config, "moe_intermediate_size")},
        n_experts=take(config, "num_experts"),
        experts_per_token=take(config, "num_experts_per_tok"),
        expert_renormalise=config.get("norm_topk_prob", False),
        **axes,
    )


def read_qwen2_moe(config: Config) -> ModelConfig:
    shared = config.get("shared_expert_intermediate_size", 5632)
    return _read_qwen(
        config, qkv_bias=config.get("qkv_bias", True), out_bias=False, shared_ffn_dim=shared
    )


def read_qwen3_moe(config: Config) -> ModelConfig:
    config = own_names(config, {"num_local_experts": "num_experts"})
    return _read_qwen({"num_key_value_heads": 4} | dict(config), qk_norm=True)


def _write_qwen(config: ModelConfig) -> dict[str, Any]:
    return llama.write(config) | {
        "moe_intermediate_size": config.ffn_dim,
        "num_experts": config.n_experts,
        "num_experts_per_tok": config.experts_per_token,
        "norm_topk_prob": config.expert_renormalise,
    }


def write_qwen2_moe(config: ModelConfig) -> dict[str, Any]:
    own = {
        "qkv_bias": config.has_bias("qkv"),
        "shared_expert_intermediate_size": config.shared_ffn_dim,
    }
    return _write_qwen(config) | own


def write_qwen3_moe(config: ModelConfig) -> dict[str, Any]:
    return _write_qwen(config) | {"attention_bias": config.has_bias("qkv")}


_FEEDFORWARD = "blocks.{i}.feedforward."
_EXPERT = "blocks.{i}.feedforward.experts.{e}"
_MIXTRAL = [
    *rule(_FEEDFORWARD + "router", LAYER + "block_sparse_moe.gate"),
    *parts(
        _EXPERT, LAYER + "block_sparse_moe.experts.{e}", {"gate": "w1", "up": "w3", "down": "w2"}
    ),
]
_QWEN = [
    *rule(_FEEDFORWARD + "router", LAYER + "mlp.gate"),
    *parts(_EXPERT, LAYER + "mlp.experts.{e}", GATED),
    *parts(_FEEDFORWARD + "shared", LAYER + "mlp.shared_expert", GATED),
    *rule(_FEEDFORWARD + "shared_gate", LAYER + "mlp.shared_expert_gate"),
]

MIXTRAL = llama.make("mixtral", "Mixtral", read_mixtral, write_mixtral, _MIXTRAL)
QWEN2_MOE = llama.make("qwen2_moe", "Qwen2Moe", read_qwen2_moe, write_qwen2_moe, _QWEN)
QWEN3_MOE = llama.make("qwen3_moe", "Qwen3Moe", read_qwen3_moe, write_qwen3_moe, _QWEN)
