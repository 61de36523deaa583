"""Falcon (Almazrouei et al. 2023, arXiv:2311.16867): a causal decoder with rotary positions and
with parallel attention and feed-forward, after one norm (7B) or one norm each (40B).
"""

from typing import Any

from langue.hub.config_keys import Config, Names, own_names, require
from langue.hub.families.bloom import (
    ATTENTION_NORM,
    EMBEDDING,
    FEEDFORWARD_NORM,
    LAYER,
    MAPS,
    QKV,
    USUAL,
)
from langue.hub.family import DECODING, Family, Rule, classes, rule
from langue.hub.rope import read_rope, write_rope_keys
from langue.model.config import ModelConfig

_NAMES = Names(
    **USUAL,
    n_layers="num_hidden_layers",
    n_heads="num_attention_heads",
    max_length=("max_position_embeddings", 2048),
    activation=("activation", "gelu"),
    bias=("bias", False),
)
# config names of the first releases, which came with their own code
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
    # only the 40B architecture has grouped key heads, or two parallel norms
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


_ATTENTION = "blocks.{i}.attention."
_EACH = "has_parallel_norms"

FALCON = Family(
    name="falcon",
    prefix="transformer.",
    read=read,
    write=write,
    architectures=classes("Falcon", "ForCausalLM"),
    body=[
        EMBEDDING,
        *rule("blocks.{i}.attention_norm", ATTENTION_NORM, when=(_EACH, False)),
        *rule("blocks.{i}.attention_norm", LAYER + "ln_attn", when=(_EACH, True)),
        *(
            Rule(
                ",".join(f"{_ATTENTION}{part}.{kind}" for part in "qkv"),
                (f"{QKV}.{kind}",),
                "heads",
            )
            for kind in ("weight", "bias")
        ),
        *rule("blocks.{i}.feedforward_norm", FEEDFORWARD_NORM, when=(_EACH, False)),
        *rule("blocks.{i}.feedforward_norm", LAYER + "ln_mlp", when=(_EACH, True)),
        *MAPS,
    ],
    heads=DECODING,
    poolings={"last": {}},
    unused=(r"rotary_emb\.inv_freq$", r"^(lm_head|score)\."),
)
