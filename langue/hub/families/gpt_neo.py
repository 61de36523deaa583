"""GPT-Neo (Black et al. 2021, doi:10.5281/zenodo.5297715): GPT-2 with a window in every other
layer, unscaled attention, and no bias on queries, keys and values.
"""

from typing import Any

from langue.hub.config_keys import USUAL, Config, Names, own_names
from langue.hub.family import DECODING, Family, Rule, classes, rule
from langue.hub.rope import read_windows, write_window
from langue.model.config import ModelConfig

_NAMES = Names(
    **{ours: theirs for ours, theirs in USUAL.items() if ours != "ffn_dim"}
    | {"n_layers": "num_layers", "n_heads": "num_heads"},
    activation=("activation_function", "gelu_new"),
    norm_eps=("layer_norm_epsilon", 1e-5),
    dropout=("resid_dropout", 0.0),
    attention_dropout=("attention_dropout", 0.0),
    init_std=("initializer_range", 0.02),
    tied=("tie_word_embeddings", True),
)


_ALIASES = {"num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"}
_KINDS = {"local": "sliding_attention", "global": "full_attention"}


def read(config: Config) -> ModelConfig:
    config = own_names(config, _ALIASES)
    axes = _NAMES.read(config, norm_place="pre", embedding_norm=False, causal=True)
    kinds = config.get("attention_layers")  # derived from `attention_types` by the published class
    if kinds is None:
        pattern = config.get("attention_types") or [[["global", "local"], 12]]
        kinds = [kind for part, times in pattern for kind in part * times]
    types = {"layer_types": [_KINDS.get(kind, kind) for kind in kinds]}
    return ModelConfig(
        **axes,
        ffn_dim=config.get("intermediate_size") or 4 * axes["dim"],
        windows=read_windows(types, config.get("window_size", 256), []),
        qkv_bias=False,
        attention_scale=1.0,
    )


def write(config: ModelConfig) -> dict[str, Any]:
    kinds = ["local" if config.window(i) else "global" for i in range(config.n_layers)]
    return _NAMES.write(config) | {
        "intermediate_size": config.ffn_dim,
        "attention_types": [[kinds, 1]],
        "attention_layers": kinds,
        "window_size": write_window(config) or 256,
        "embed_dropout": config.dropout,
    }


_ATTENTION = "h.{i}.attn.attention."

GPT_NEO = Family(
    name="gpt_neo",
    prefix="transformer.",
    read=read,
    write=write,
    architectures=classes("GPTNeo", "ForCausalLM"),
    body=[
        Rule("token.weight", ("wte.weight",)),
        Rule("position.weight", ("wpe.weight",)),
        *rule("blocks.{i}.attention_norm", "h.{i}.ln_1"),
        *rule("blocks.{i}.attention.qkv", *(f"{_ATTENTION}{part}_proj" for part in "qkv")),
        *rule("blocks.{i}.attention.out", _ATTENTION + "out_proj"),
        *rule("blocks.{i}.feedforward_norm", "h.{i}.ln_2"),
        *rule("blocks.{i}.feedforward.up", "h.{i}.mlp.c_fc"),
        *rule("blocks.{i}.feedforward.down", "h.{i}.mlp.c_proj"),
        *rule("final_norm", "ln_f"),
    ],
    heads=DECODING,
    poolings={"last": {}},
    unused=(r"\.attention\.(masked_)?bias$", r"^(lm_head|score)\.weight$"),
)
