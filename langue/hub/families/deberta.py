"""DeBERTa (He et al. 2020, arXiv:2006.03654), its second version, and its third (He et al. 2021,
arXiv:2111.09543): BERT with disentangled attention, whose scores combine contents and relative
distances, in addition to absolute positions in the embedding or instead of them. The first version
has no buckets of distances, and its keys have no bias.
"""

from dataclasses import replace
from typing import Any

from langue.errors import ModelError
from langue.hub.config_keys import USUAL, Config, Names, require, take
from langue.hub.families import bert
from langue.hub.family import Family, Rule, classes, rule
from langue.model.config import ModelConfig

_NAMES = Names(
    **USUAL,
    norm_eps=("layer_norm_eps", 1e-7),
    activation=("hidden_act", "gelu"),
    n_segments=("type_vocab_size", 0),
    dropout=("hidden_dropout_prob", 0.1),
    attention_dropout=("attention_probs_dropout_prob", 0.1),
    init_std=("initializer_range", 0.02),
    pooler_activation=("pooler_hidden_act", "gelu"),
    tied=("tie_word_embeddings", True),
    shared_position_maps=("share_att_key", False),
    convolution=("conv_kernel_size", 0),
    convolution_activation=("conv_act", "tanh"),
)
# keys that the second version introduced
_LATER = ("position_buckets", "norm_rel_ebd", "share_att_key", "conv_kernel_size", "conv_act")
_TERMS = {"c2p": "content_to_position", "p2c": "position_to_content"}


def read(config: Config) -> ModelConfig:
    dim = take(config, "hidden_size")
    require(config, embedding_size=dim, pooler_hidden_size=dim, conv_groups=1)
    require(config, attention_head_size=dim // take(config, "num_attention_heads"))
    axes = _NAMES.read(config)
    axes["head_activation"] = axes["activation"]
    if not config.get("position_biased_input", True):
        axes["position"] = "none"
    return ModelConfig(**axes, **_read_distances(config), head_transform=True, head_bias=True)


def read_first(config: Config) -> ModelConfig:
    require(config, talking_head=False)
    # not used by the first version
    own = {key: value for key, value in config.items() if key not in _LATER}
    return replace(read(own), key_bias=False)


def _read_distances(config: Config) -> dict[str, Any]:
    terms = _parts(config, "pos_att_type", tuple(_TERMS))
    if bool(config.get("relative_attention", False)) != bool(terms):
        raise ModelError(
            "config: relative_attention and pos_att_type are not there together",
            do="set both, or neither",
        )
    norm = "layer_norm" in _parts(config, "norm_rel_ebd", ("layer_norm", "none"))
    if not terms:
        return {}
    said = {"position_buckets": -1, "max_relative_positions": -1} | dict(config)
    buckets = take(said, "position_buckets")
    distance = take(said, "max_relative_positions")
    return {
        **{axis: term in terms for term, axis in _TERMS.items()},
        "relative_buckets": max(0, 2 * buckets),
        "relative_distance": distance if distance > 0 else take(config, "max_position_embeddings"),
        "position_norm": norm,
    }


def _parts(config: Config, key: str, known: tuple[str, ...]) -> list[str]:
    """Return the parts of a value that is a list, or a text with bars between the parts."""
    value = config.get(key) or []
    parts = value.lower().split("|") if isinstance(value, str) else value
    if not isinstance(parts, list):
        raise ModelError(f"config: {key} = {value!r} is neither a list nor a text")
    parts = [str(part).strip() for part in parts]
    for part in parts:
        require({key: part}, **{key: known})
    return parts


def write(config: ModelConfig) -> dict[str, Any]:
    written = _NAMES.write(config) | {
        "position_biased_input": config.position == "learned",
        "relative_attention": config.is_disentangled,
        "pooler_hidden_size": config.dim,
    }
    if not config.is_disentangled:
        return written
    terms = [term for term, axis in _TERMS.items() if getattr(config, axis)]
    return written | {
        "pos_att_type": terms,
        "position_buckets": config.relative_buckets // 2 or -1,
        "max_relative_positions": config.relative_distance,
        "norm_rel_ebd": "layer_norm" if config.position_norm else "none",
    }


def write_first(config: ModelConfig) -> dict[str, Any]:
    return {key: value for key, value in write(config).items() if key not in _LATER}


_SELF = "encoder.layer.{i}.attention.self."
# the masked-LM head, for which files use two names, and that of ELECTRA's kind
_OLD_HEAD = "lm_predictions.lm_head."
_HEAD = "cls.predictions."
_KINDS = ("weight", "bias")

DEBERTA_V2 = Family(
    name="deberta-v2",
    prefix="deberta.",
    read=read,
    write=write,
    architectures=classes("DebertaV2", "ForMaskedLM"),
    body=[
        *(r for r in bert.BERT.body if ".attention.qkv." not in r.ours),
        *rule(
            "blocks.{i}.attention.qkv", *(_SELF + f"{x}_proj" for x in ("query", "key", "value"))
        ),
        *rule("blocks.{i}.attention.position_key", _SELF + "pos_key_proj"),
        *rule("blocks.{i}.attention.position_query", _SELF + "pos_query_proj"),
        Rule("distances.table.weight", ("encoder.rel_embeddings.weight",)),
        *rule("distances.norm", "encoder.LayerNorm"),
        *rule("blocks.0.convolution.map", "encoder.conv.conv"),
        *rule("blocks.0.convolution.norm", "encoder.conv.LayerNorm"),
    ],
    heads={
        "sequence": [*rule("head.pooler", "pooler.dense"), *rule("head.out", "classifier")],
        "lm": [r for r in bert.BERT.heads["lm"] if r.theirs[0].startswith(_HEAD)],
    },
    renames={
        **bert.BERT.renames,
        **{f"{_OLD_HEAD}dense.{kind}": f"{_HEAD}transform.dense.{kind}" for kind in _KINDS},
        **{f"{_OLD_HEAD}LayerNorm.{kind}": f"{_HEAD}transform.LayerNorm.{kind}" for kind in _KINDS},
        f"{_OLD_HEAD}bias": f"{_HEAD}bias",
    },
    # some files contain position embeddings although their config has none
    unused=(*bert.BERT.unused, r"embeddings\.position_embeddings\.", r"^mask_predictions\."),
)

_ATTENTION = "blocks.{i}.attention."
DEBERTA = replace(
    DEBERTA_V2,
    name="deberta",
    read=read_first,
    write=write_first,
    architectures=classes("Deberta", "ForMaskedLM"),
    body=[
        *(r for r in bert.BERT.body if ".attention.qkv." not in r.ours),
        Rule(
            ",".join(f"{_ATTENTION}{x}.weight" for x in "qkv"), (_SELF + "in_proj.weight",), "heads"
        ),
        *(Rule(f"{_ATTENTION}{x}.bias", (f"{_SELF}{x}_bias",)) for x in "qv"),
        Rule(_ATTENTION + "position_key.weight", (_SELF + "pos_proj.weight",)),
        *rule(_ATTENTION + "position_query", _SELF + "pos_q_proj"),
        Rule("distances.table.weight", ("encoder.rel_embeddings.weight",)),
    ],
)
