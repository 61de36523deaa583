"""GLM-4 (Zeng et al. 2024, arXiv:2406.12793): Llama with interleaved rotary positions on a part of
each head, and with the gate and up maps in one matrix; the models of 2025 also have a norm after
each sublayer.
"""

from dataclasses import replace
from typing import Any

from langue.hub.config_keys import Config
from langue.hub.families import llama
from langue.hub.families.phi3 import GATE_UP
from langue.hub.family import rule
from langue.hub.rope import read_rope, write_partial_rope_keys
from langue.model.config import ModelConfig


def read_glm(config: Config, **axes: Any) -> ModelConfig:
    defaults = {"num_key_value_heads": 2, "head_dim": 128, "rms_norm_eps": 1.5625e-7}
    rest = {k: v for k, v in config.items() if not k.startswith(("rope_", "partial_rotary"))}
    bias = config.get("attention_bias", True)
    base = llama.read(defaults | rest, qkv_bias=bias, out_bias=False, ffn_bias=False, **axes)
    return replace(base, **read_rope(config, head_dim=base.head_dim, part=0.5))


def read_glm4(config: Config) -> ModelConfig:
    return read_glm(config, norm_place="both")


def write(config: ModelConfig) -> dict[str, Any]:
    own = {"attention_bias": config.has_bias("qkv")}
    return llama.write(config) | own | write_partial_rope_keys(config)


_ATTENTION = "blocks.{i}.attention."
_PARTS = [f"layers.{{i}}.self_attn.{part}_proj" for part in "qkv"]
INTERLEAVED = [  # Llama's rules with interleaved rotary pairs
    *(r for r in llama.BODY if r.ours.split(".")[-2] not in ("qkv", "q", "k")),
    *rule(_ATTENTION + "qkv", *_PARTS, change="interleaved"),
    *rule(_ATTENTION + "q", _PARTS[0], change="interleaved"),
    *rule(_ATTENTION + "k", _PARTS[1], change="interleaved"),
]
_GLM = [*(r for r in INTERLEAVED if r.ours.split(".")[-2] not in ("gate", "up")), GATE_UP]
_GLM4 = [
    *_GLM,
    *rule("blocks.{i}.attention_out_norm", "layers.{i}.post_self_attn_layernorm"),
    *rule("blocks.{i}.feedforward_out_norm", "layers.{i}.post_mlp_layernorm"),
]

GLM = replace(llama.make("glm", "Glm", read_glm, write), body=_GLM)
GLM4 = replace(llama.make("glm4", "Glm4", read_glm4, write), body=_GLM4)
