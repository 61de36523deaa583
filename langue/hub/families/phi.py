"""Phi-1, 1.5 and 2 (Gunasekar et al. 2023, arXiv:2306.11644): causal decoders with parallel
attention and feed-forward after one norm, and rotary positions on a part of each head.
"""

from typing import Any

from langue.hub.config_keys import USUAL, Config, Names
from langue.hub.families.llama import LAYER, parts
from langue.hub.family import DECODING, LM_WITH_BIAS, Family, Rule, classes, rule
from langue.hub.rope import read_rope, write_partial_rope_keys
from langue.model.config import ModelConfig

_NAMES = Names(
    **USUAL,
    kv_heads=("num_key_value_heads", None),
    activation=("hidden_act", "gelu_new"),
    norm_eps=("layer_norm_eps", 1e-5),
    qk_norm=("qk_layernorm", False),
    dropout=("resid_pdrop", 0.0),
    attention_dropout=("attention_dropout", 0.0),
    init_std=("initializer_range", 0.02),
    tied=("tie_word_embeddings", False),
)


def read(config: Config) -> ModelConfig:
    axes = _NAMES.read(config, norm_place="pre", embedding_norm=False, causal=True)
    axes["kv_heads"] = axes["kv_heads"] or axes["n_heads"]
    axes |= read_rope(config, head_dim=axes["dim"] // axes["n_heads"], part=0.5)
    return ModelConfig(**axes, parallel=True, shared_norm=True, head_bias=True)


def write(config: ModelConfig) -> dict[str, Any]:
    own = {"num_key_value_heads": config.n_kv_heads, "embd_pdrop": config.dropout}
    return _NAMES.write(config) | own | write_partial_rope_keys(config)


_ATTENTION = "blocks.{i}.attention."
_PARTS = {part: f"{part}_proj" for part in "qkv"}

PHI = Family(
    name="phi",
    prefix="model.",
    read=read,
    write=write,
    architectures=classes("Phi", "ForCausalLM"),
    body=[
        Rule("token.weight", ("embed_tokens.weight",)),
        *rule("blocks.{i}.attention_norm", LAYER + "input_layernorm"),
        *rule(_ATTENTION + "qkv", *(f"{LAYER}self_attn.{name}" for name in _PARTS.values())),
        *parts("blocks.{i}.attention", LAYER + "self_attn", _PARTS),
        *rule(_ATTENTION + "q_norm", LAYER + "self_attn.q_layernorm"),
        *rule(_ATTENTION + "k_norm", LAYER + "self_attn.k_layernorm"),
        *rule(_ATTENTION + "out", LAYER + "self_attn.dense"),
        *rule("blocks.{i}.feedforward.up", LAYER + "mlp.fc1"),
        *rule("blocks.{i}.feedforward.down", LAYER + "mlp.fc2"),
        *rule("final_norm", "final_layernorm"),
    ],
    heads=DECODING | {"lm": LM_WITH_BIAS},
    poolings={"last": {}},
    unused=(r"rotary_emb\.inv_freq$", r"^(lm_head|score)\."),
)
