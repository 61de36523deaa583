"""Falcon (Almazrouei et al. 2023, arXiv:2311.16867): a causal decoder with rotary positions whose
attention and feed-forward run side by side, behind one norm (7B) or one each (40B).
"""

from typing import Any

from langue.hub.config_keys import Config, Names, own_names, require
from langue.hub.family import DECODING, Family, Rule, classes, rule
from langue.hub.rope import read_rope, write_rope_keys
from langue.model.config import ModelConfig

_NAMES = Names(
    vocab_size="vocab_size",
    dim="hidden_size",
    n_layers="num_hidden_layers",
    n_heads="num_attention_heads",
    max_length=("max_position_embeddings", 2048),
    activation=("activation", "gelu"),
    norm_eps=("layer_norm_epsilon", 1e-5),
    bias=("bias", False),
    dropout=("hidden_dropout", 0.0),
    attention_dropout=("attention_dropout", 0.0),
    init_std=("initializer_range", 0.02),
    tied=("tie_word_embeddings", True),
)
# the names of the first releases, whose configs came with code of their own
_ALIASES = {
    "n_embed": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_head_kv": "num_kv_heads",
}


def read(config: Config) -> ModelConfig:
    config = own_names(config, _ALIASES)
    # its ALiBi (falcon-rw) is rounded to 8 bits before it is added
    require(config, alibi=False)
    axes = _NAMES.read(config, norm_place="pre", norm_bias=True, embedding_norm=False, causal=True)
    shares = axes["n_heads"]
    norms = 1
    if config.get("new_decoder_architecture", False):
        require(config, parallel_attn=(None, True))
        shares = config.get("num_kv_heads") or shares
        norms = config.get("num_ln_in_parallel_attn") or 2
    elif config.get("multi_query", True):
        shares = 1
    parallel = config.get("parallel_attn", True)
    axes |= read_rope(
        {"max_position_embeddings": axes["max_length"]} | dict(config),
        head_dim=axes["dim"] // axes["n_heads"],
    )
    return ModelConfig(
        **axes,
        kv_heads=shares,
        ffn_dim=config.get("ffn_hidden_size") or 4 * axes["dim"],
        parallel=parallel,
        shared_norm=parallel and norms == 1,
    )


def write(config: ModelConfig) -> dict[str, Any]:
    # only that of the 40B has some heads of keys, or two norms side by side
    new = config.parallel and not (config.shared_norm and config.n_kv_heads in (1, config.n_heads))
    return (
        _NAMES.write(config)
        | {
            "ffn_hidden_size": config.ffn_dim,
            "new_decoder_architecture": new,
            "num_kv_heads": config.n_kv_heads,
            "multi_query": config.n_kv_heads == 1,
            "parallel_attn": config.parallel,
            "num_ln_in_parallel_attn": 1 if config.shared_norm else 2,
            "alibi": False,
        }
        | write_rope_keys(config)
    )


_LAYER = "h.{i}."
_QKV = _LAYER + "self_attention.query_key_value"
_ATTENTION = "blocks.{i}.attention."
_EACH = "has_parallel_norms"

FALCON = Family(
    name="falcon",
    prefix="transformer.",
    read=read,
    write=write,
    architectures=classes("Falcon", "ForCausalLM"),
    body=[
        Rule("token.weight", ("word_embeddings.weight",)),
        *rule("blocks.{i}.attention_norm", _LAYER + "input_layernorm", when=(_EACH, False)),
        *rule("blocks.{i}.attention_norm", _LAYER + "ln_attn", when=(_EACH, True)),
        *rule(_ATTENTION + "qkv", _QKV, change="heads"),
        *(
            Rule(
                ",".join(f"{_ATTENTION}{part}.{kind}" for part in "qkv"),
                (f"{_QKV}.{kind}",),
                "heads",
            )
            for kind in ("weight", "bias")
        ),
        *rule(_ATTENTION + "out", _LAYER + "self_attention.dense"),
        *rule(
            "blocks.{i}.feedforward_norm", _LAYER + "post_attention_layernorm", when=(_EACH, False)
        ),
        *rule("blocks.{i}.feedforward_norm", _LAYER + "ln_mlp", when=(_EACH, True)),
        *rule("blocks.{i}.feedforward.up", _LAYER + "mlp.dense_h_to_4h"),
        *rule("blocks.{i}.feedforward.down", _LAYER + "mlp.dense_4h_to_h"),
        *rule("final_norm", "ln_f"),
    ],
    heads=DECODING,
    poolings={"last": {}},
    unused=(r"rotary_emb\.inv_freq$", r"^(lm_head|score)\."),
)
