"""StarCoder2 (Lozhkov et al. 2024, arXiv:2402.19173): a pre-norm decoder with LayerNorm, shared
keys and values, rotary positions, and a bias on every linear map.
"""

from typing import Any

from langue.hub.config_keys import USUAL, Config, Names, take
from langue.hub.families.llama import LAYER, parts
from langue.hub.family import DECODING, Family, Rule, classes, rule
from langue.hub.rope import read_rope, read_windows, write_rope_keys, write_window
from langue.model.config import ModelConfig

_NAMES = Names(
    **USUAL,
    kv_heads=("num_key_value_heads", 2),
    norm_eps=("norm_epsilon", 1e-5),
    activation=("hidden_act", "gelu_pytorch_tanh"),
    bias=("use_bias", True),
    dropout=("residual_dropout", 0.0),
    attention_dropout=("attention_dropout", 0.0),
    init_std=("initializer_range", 0.018042),
    tied=("tie_word_embeddings", True),
)


def read(config: Config) -> ModelConfig:
    everywhere = [True] * take(config, "num_hidden_layers")
    head_dim = take(config, "hidden_size") // take(config, "num_attention_heads")
    axes = _NAMES.read(config, norm_place="pre", norm_bias=True, embedding_norm=False, causal=True)
    axes["windows"] = read_windows(config, config.get("sliding_window"), everywhere)
    return ModelConfig(**axes | read_rope(config, head_dim=head_dim))


def write(config: ModelConfig) -> dict[str, Any]:
    own = {"sliding_window": write_window(config)}
    return _NAMES.write(config) | own | write_rope_keys(config)


STARCODER2 = Family(
    name="starcoder2",
    prefix="model.",
    read=read,
    write=write,
    architectures=classes("Starcoder2", "ForCausalLM"),
    body=[
        Rule("token.weight", ("embed_tokens.weight",)),
        *rule("blocks.{i}.attention_norm", LAYER + "input_layernorm"),
        # stacked in one matrix, or three where heads share their keys and values
        *rule("blocks.{i}.attention.qkv", *(f"{LAYER}self_attn.{part}_proj" for part in "qkv")),
        *parts("blocks.{i}.attention", LAYER + "self_attn", {p: f"{p}_proj" for p in "qkv"}),
        *rule("blocks.{i}.attention.out", LAYER + "self_attn.o_proj"),
        *rule("blocks.{i}.feedforward_norm", LAYER + "post_attention_layernorm"),
        *rule("blocks.{i}.feedforward.up", LAYER + "mlp.c_fc"),
        *rule("blocks.{i}.feedforward.down", LAYER + "mlp.c_proj"),
        *rule("final_norm", "norm"),
    ],
    heads=DECODING,
    poolings={"last": {}},
    unused=(r"^(lm_head|score)\.weight$",),
)
