"""Llama 1-3 (Touvron et al. 2023, arXiv:2302.13971) and those that differ from it by axes: Mistral (arXiv:2310.06825),
Qwen2 (arXiv:2407.10671), Qwen3 (arXiv:2505.09388), Mixtral (arXiv:2401.04088) and Qwen's mixtures of experts."""

from collections.abc import Callable
from typing import Any

from langue.hub.family import Config, Family, Rule, read_activation, require, rule, take, write_activation
from langue.hub.rope import read_rope, read_windows, write_layer_types, write_rope, write_window
from langue.model.config import ModelConfig


def _read(config: Config, **axes: Any) -> ModelConfig:
    dim, heads = take(config, "hidden_size"), take(config, "num_attention_heads")
    width = axes.pop("width", dim // heads)
    head_dim = config.get("head_dim") or width
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


def _write(config: ModelConfig) -> dict[str, Any]:
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


def read_llama(config: Config) -> ModelConfig:
    return _read(config)


def write_llama(config: ModelConfig) -> dict[str, Any]:
    return _write(config) | {"attention_bias": config.has_bias("qkv"), "mlp_bias": config.has_bias("ffn")}


def read_mistral(config: Config) -> ModelConfig:
    require(config, layer_types=None)
    windows = read_windows(config, config.get("sliding_window"), [True] * take(config, "num_hidden_layers"))
    return _read(config, windows=windows, qkv_bias=False, out_bias=False)


def write_mistral(config: ModelConfig) -> dict[str, Any]:
    return _write(config) | {"sliding_window": write_window(config)}


def _qwen_windows(config: Config) -> tuple[int, ...]:
    window = config.get("sliding_window", 4096) if config.get("use_sliding_window", False) else None
    first = config.get("max_window_layers", 28)
    return read_windows(config, window, [i >= first for i in range(take(config, "num_hidden_layers"))])


def _write_qwen_windows(config: ModelConfig) -> dict[str, Any]:
    window = write_window(config)
    return {
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "layer_types": write_layer_types(config),
    }


def read_qwen2(config: Config) -> ModelConfig:
    return _read(config, qkv_bias=True, out_bias=False, windows=_qwen_windows(config))


def read_qwen3(config: Config) -> ModelConfig:
    return _read(config, qk_norm=True, width=128, windows=_qwen_windows(config))


def write_qwen2(config: ModelConfig) -> dict[str, Any]:
    return _write(config) | _write_qwen_windows(config)


def write_qwen3(config: ModelConfig) -> dict[str, Any]:
    return _write(config) | _write_qwen_windows(config) | {"attention_bias": config.has_bias("qkv")}


def read_mixtral(config: Config) -> ModelConfig:
    require(config, router_jitter_noise=(0, 0.0))
    windows = read_windows(config, config.get("sliding_window"), [True] * take(config, "num_hidden_layers"))
    return _read(
        config,
        windows=windows,
        n_experts=config.get("num_local_experts", 8),
        experts_per_token=config.get("num_experts_per_tok", 2),
    )


def write_mixtral(config: ModelConfig) -> dict[str, Any]:
    mixture = {"num_local_experts": config.n_experts, "num_experts_per_tok": config.experts_per_token}
    return _write(config) | {"sliding_window": write_window(config)} | mixture


def _read_qwen_moe(config: Config, **axes: Any) -> ModelConfig:
    # Where some layers have a plain feed-forward, or windows, the rules below do not say so.
    require(config, decoder_sparse_step=1, mlp_only_layers=(None, []), use_sliding_window=False)
    return _read(
        {**config, "intermediate_size": take(config, "moe_intermediate_size")},
        n_experts=take(config, "num_experts" if "num_experts" in config else "num_local_experts"),
        experts_per_token=take(config, "num_experts_per_tok"),
        expert_renormalise=config.get("norm_topk_prob", False),
        **axes,
    )


def read_qwen2_moe(config: Config) -> ModelConfig:
    shared = config.get("shared_expert_intermediate_size", 5632)
    return _read_qwen_moe(config, qkv_bias=config.get("qkv_bias", True), out_bias=False, shared_ffn_dim=shared)


def read_qwen3_moe(config: Config) -> ModelConfig:
    return _read_qwen_moe(config, qk_norm=True)


def _write_qwen_moe(config: ModelConfig) -> dict[str, Any]:
    return _write(config) | {
        "moe_intermediate_size": config.ffn_dim,
        "num_experts": config.n_experts,
        "num_experts_per_tok": config.experts_per_token,
        "norm_topk_prob": config.expert_renormalise,
    }


def write_qwen2_moe(config: ModelConfig) -> dict[str, Any]:
    own = {"qkv_bias": config.has_bias("qkv"), "shared_expert_intermediate_size": config.shared_ffn_dim}
    return _write_qwen_moe(config) | own


def write_qwen3_moe(config: ModelConfig) -> dict[str, Any]:
    return _write_qwen_moe(config) | {"attention_bias": config.has_bias("qkv")}


_LAYER = "layers.{i}."
_GATED = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
_MIXTRAL = {"gate": "w1", "up": "w3", "down": "w2"}


def _parts(ours: str, theirs: str, names: dict[str, str]) -> list[Rule]:
    return [each for part, name in names.items() for each in rule(f"{ours}.{part}", f"{theirs}.{name}")]


BODY = [
    Rule("token.weight", ("embed_tokens.weight",)),
    *rule("blocks.{i}.attention_norm", _LAYER + "input_layernorm"),
    *rule("blocks.{i}.attention.qkv", *(f"{_LAYER}self_attn.{part}_proj" for part in "qkv")),
    *rule("blocks.{i}.attention.q_norm", _LAYER + "self_attn.q_norm"),
    *rule("blocks.{i}.attention.k_norm", _LAYER + "self_attn.k_norm"),
    *rule("blocks.{i}.attention.out", _LAYER + "self_attn.o_proj"),
    *rule("blocks.{i}.feedforward_norm", _LAYER + "post_attention_layernorm"),
    *_parts("blocks.{i}.feedforward", _LAYER + "mlp", _GATED),
    *rule("final_norm", "norm"),
]
_QWEN_EXPERTS = [
    *rule("blocks.{i}.feedforward.router", _LAYER + "mlp.gate"),
    *_parts("blocks.{i}.feedforward.experts.{e}", _LAYER + "mlp.experts.{e}", _GATED),
    *_parts("blocks.{i}.feedforward.shared", _LAYER + "mlp.shared_expert", _GATED),
    *rule("blocks.{i}.feedforward.shared_gate", _LAYER + "mlp.shared_expert_gate"),
]
_MIXTRAL_EXPERTS = [
    *rule("blocks.{i}.feedforward.router", _LAYER + "block_sparse_moe.gate"),
    *_parts("blocks.{i}.feedforward.experts.{e}", _LAYER + "block_sparse_moe.experts.{e}", _MIXTRAL),
]


def make(
    name: str,
    stem: str,
    read: Callable[[Config], ModelConfig],
    write: Callable[[ModelConfig], dict[str, Any]],
    more: list[Rule] | None = None,
) -> Family:
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


LLAMAS = (
    make("llama", "Llama", read_llama, write_llama),
    make("mistral", "Mistral", read_mistral, write_mistral),
    make("qwen2", "Qwen2", read_qwen2, write_qwen2),
    make("qwen3", "Qwen3", read_qwen3, write_qwen3),
    make("mixtral", "Mixtral", read_mixtral, write_mixtral, _MIXTRAL_EXPERTS),
    make("qwen2_moe", "Qwen2Moe", read_qwen2_moe, write_qwen2_moe, _QWEN_EXPERTS),
    make("qwen3_moe", "Qwen3Moe", read_qwen3_moe, write_qwen3_moe, _QWEN_EXPERTS),
)
