"""Phi-3 (Abdin et al. 2024, arXiv:2404.14219) and Phi-4: Llama with queries, keys and values in one
matrix, and the gate and up maps in another; the models with a context of 128,000 tokens use
LongRoPE.
"""

from dataclasses import replace
from typing import Any

from langue.hub.config_keys import Config, require, take
from langue.hub.families import llama
from langue.hub.family import Rule, rule
from langue.hub.rope import (
    longrope_amplitude,
    read_rope,
    read_windows,
    write_partial_rope_keys,
    write_window,
)
from langue.model.config import ModelConfig


def read(config: Config) -> ModelConfig:
    require(config, attention_bias=False, mlp_bias=False)
    everywhere = [True] * take(config, "num_hidden_layers")
    rest = {k: v for k, v in config.items() if not k.startswith(("rope_", "partial_rotary_factor"))}
    base = llama.read(
        {"rms_norm_eps": 1e-5} | rest,
        windows=read_windows({}, config.get("sliding_window"), everywhere),
        dropout=config.get("resid_pdrop", 0.0),
    )
    axes = read_rope(_with_longrope(config), head_dim=base.head_dim, part=1.0)
    require(axes, rotary_scaling=("none", "longrope"))
    return replace(base, **axes)


def _with_longrope(config: Config) -> Config:
    """Return the config with LongRoPE under its current name; it was `su` and `yarn` before."""
    renamed = {"original_max_position_embeddings": 4096} | dict(config)
    for key in ("rope_parameters", "rope_scaling"):
        rope = renamed.get(key) or {}
        if rope.get("rope_type", rope.get("type")) in ("su", "yarn"):
            renamed[key] = {k: v for k, v in rope.items() if k != "type"} | {
                "rope_type": "longrope"
            }
    return renamed


def write(config: ModelConfig) -> dict[str, Any]:
    written = (
        llama.write(config)
        | {"sliding_window": write_window(config), "resid_pdrop": config.dropout}
        | write_partial_rope_keys(config)
    )
    if config.rotary_scaling == "longrope":
        # transformers 4 accepts these three keys and no others; version 5 converts them
        rope: dict[str, Any] = {
            "type": "longrope",
            "short_factor": [*config.rotary_short],
            "long_factor": [*config.rotary_long],
        }
        usual = longrope_amplitude(config.rotary_factor, config.rotary_length)
        if config.rotary_amplitude != usual:
            rope["attention_factor"] = config.rotary_amplitude
        del written["rope_parameters"]
        written |= {
            "rope_scaling": rope,
            "original_max_position_embeddings": config.rotary_length,
        }
    return written


_SPLIT = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")  # Llama's maps that are fused here
_QKV = "layers.{i}.self_attn.qkv_proj"
_ATTENTION = "blocks.{i}.attention."
_FEEDFORWARD = "blocks.{i}.feedforward."
GATE_UP = Rule(
    f"{_FEEDFORWARD}gate.weight,{_FEEDFORWARD}up.weight",
    ("layers.{i}.mlp.gate_up_proj.weight",),
    "halves",
)

PHI3 = replace(
    llama.make("phi3", "Phi3", read, write),
    body=[
        *(r for r in llama.BODY if r.theirs[0].split(".")[-2] not in _SPLIT),
        *rule(_ATTENTION + "qkv", _QKV),
        Rule(
            ",".join(f"{_ATTENTION}{part}.weight" for part in "qkv"), (f"{_QKV}.weight",), "grouped"
        ),
        GATE_UP,
    ],
)
