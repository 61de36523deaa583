"""Choose the family and config of a new model from a preset's name or a number of parameters.

A preset is a published config that its family reads. With a number of parameters, the proportions
of published models are kept: one layer per 64 of width (GPT-2 with 12 layers of 768 and Llama 7B
with 32 of 4096 are within a factor of two), and heads of width 64, or 32 in narrow models.
"""

import bisect
import difflib
import math
import re
from dataclasses import fields, replace
from typing import Any

from langue.errors import ModelError, SettingsError
from langue.hub.config_keys import MOST
from langue.hub.families.registry import FAMILIES
from langue.hub.family import Family
from langue.model.config import ModelConfig

ASPECT = 64  # width / depth
NARROW = 256  # below this width, heads have width 32
# number of widths compared on either side; deeper models of the same size are narrower
NEIGHBOURS = 12


def _head_width(dim: int) -> int:
    return 64 if dim >= NARROW else 32


WIDTHS = [dim for dim in range(32, 16_385, 32) if dim % _head_width(dim) == 0]


def _bert(layers: int, dim: int) -> dict[str, Any]:
    """Return a config from Turc et al. 2019, arXiv:1908.08962, table 1."""
    sizes = {"hidden_size": dim, "num_attention_heads": dim // 64, "intermediate_size": 4 * dim}
    return {"model_type": "bert", "num_hidden_layers": layers, **sizes}


def _gpt2(layers: int, dim: int, heads: int) -> dict[str, Any]:
    return {"model_type": "gpt2", "n_layer": layers, "n_embd": dim, "n_head": heads}


def _t5(layers: int, dim: int, heads: int, ffn: int, v1_1: bool = True) -> dict[str, Any]:
    newer = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False} if v1_1 else {}
    return {
        "model_type": "t5",
        "num_layers": layers,
        "d_model": dim,
        "num_heads": heads,
        "d_kv": 64,
        "d_ff": ffn,
    } | newer


def _mbart(layers: int, dim: int, heads: int, ffn: int) -> dict[str, Any]:
    """Return a config of pre-norm mBART (Liu et al. 2020, arXiv:2001.08210)."""
    sides = {
        f"{side}_{key}": value
        for side in ("encoder", "decoder")
        for key, value in (("layers", layers), ("attention_heads", heads), ("ffn_dim", ffn))
    }
    return {"model_type": "mbart", "d_model": dim, "scale_embedding": True, **sides}


def _deberta(layers: int, dim: int) -> dict[str, Any]:
    """Return a config of the third version (He et al. 2021, arXiv:2111.09543)."""
    return {
        **{"model_type": "deberta-v2", "num_hidden_layers": layers, "hidden_size": dim},
        **{"num_attention_heads": dim // 64, "intermediate_size": 4 * dim},
        **{"relative_attention": True, "pos_att_type": "p2c|c2p", "share_att_key": True},
        **{"position_buckets": 256, "max_relative_positions": 512, "norm_rel_ebd": "layer_norm"},
        "position_biased_input": False,
    }


def _wide(kind: str, layers: int, dim: int, heads: int, ffn: int) -> dict[str, Any]:
    sizes = {
        "num_hidden_layers": layers,
        "hidden_size": dim,
        "num_attention_heads": heads,
        "intermediate_size": ffn,
    }
    return {"model_type": kind, "tie_word_embeddings": kind == "llama", **sizes}


PRESETS: dict[str, dict[str, Any]] = {
    "bert-tiny": _bert(2, 128),
    "bert-mini": _bert(4, 256),
    "bert-small": _bert(4, 512),
    "bert-medium": _bert(8, 512),
    "bert-base": _bert(12, 768),
    "gpt2": _gpt2(12, 768, 12),
    "gpt2-medium": _gpt2(24, 1024, 16),
    "gpt2-large": _gpt2(36, 1280, 20),
    "gpt2-xl": _gpt2(48, 1600, 25),
    "t5-small": _t5(6, 512, 8, 2048, v1_1=False),
    "t5-base": _t5(12, 768, 12, 3072, v1_1=False),
    "t5-1.1-small": _t5(8, 512, 6, 1024),
    "t5-1.1-base": _t5(12, 768, 12, 2048),
    "mbart-base": _mbart(6, 768, 12, 3072),
    # from SmolLM, arXiv:2502.02737
    "llama-135m": _wide("llama", 30, 576, 9, 1536) | {"num_key_value_heads": 3},
    # Llama 3.2
    "llama-1b": (
        _wide("llama", 16, 2048, 32, 8192) | {"num_key_value_heads": 8, "rope_theta": 500_000.0}
    ),
    "modernbert-base": {  # Warner et al. 2024, arXiv:2412.13663
        **_wide("modernbert", 22, 768, 12, 1152),
        **{"global_attn_every_n_layers": 3, "local_attention": 128, "tie_word_embeddings": True},
    },
    "deberta-v3-xsmall": _deberta(12, 384),
    "deberta-v3-small": _deberta(6, 768),
    "deberta-v3-base": _deberta(12, 768),
    # Our own for small budgets: see nanochat.py; docs/LOG.md has measurements of each part's
    # benefit.
    "langue": _wide("nanochat", 6, 384, 6, 1536) | {"final_logit_softcapping": 15.0},
}
# The preset from which a size is scaled, by a name without a size.
KINDS = {
    "bert": "bert-base",
    "modernbert": "modernbert-base",
    "deberta-v3": "deberta-v3-base",
    "gpt2": "gpt2",
    "t5": "t5-1.1-base",
    "mbart": "mbart-base",
    "llama": "llama-135m",
    "langue": "langue",
}
USUAL = "langue"  # the default


def preset(
    name: str,
    vocab_size: int,
    max_length: int,
    *,
    size: str | None = None,
    axes: dict[str, Any] | None = None,
) -> tuple[Family, ModelConfig]:
    """Return the family and config of a new model.

    name: one of PRESETS or KINDS. size: number of parameters, such as `10M`. axes: fields of
    ModelConfig to set. Raises SettingsError for an unknown name or an impossible size.
    """
    known = KINDS.get(name, name) if size or name not in PRESETS else name
    if known not in PRESETS:
        close = difflib.get_close_matches(name, [*PRESETS, *KINDS], 1, 0.4)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(PRESETS)}"
        raise SettingsError(f"the preset {name!r} is not known", do=hint)
    published = PRESETS[known]
    family = FAMILIES[published["model_type"]]
    if max_length > MOST:
        raise SettingsError(
            f"sequences of {max_length:,} tokens do not fit any model", do="make them shorter"
        )
    length = {"gpt2": "n_positions", "t5": "n_positions"}.get(
        family.name, "max_position_embeddings"
    )
    config = family.read({"vocab_size": vocab_size, length: max_length} | published)
    config = replace(config, tied=published.get("tie_word_embeddings", config.tied))
    if size is not None:
        config = sized(config, parse_count(size))
    return family, roundtrip_or_raise(family, _with(config, axes or {}))


def sized(config: ModelConfig, parameters: int) -> ModelConfig:
    """Return the same architecture with depth, width and heads for this many parameters, including
    embeddings.

    The number of parameters grows with the width, so the width is found by bisection, and the
    shapes with nearby widths are compared.
    """
    near = bisect.bisect_left(WIDTHS, parameters, key=lambda dim: count(_shapes(config, dim)[0]))
    best: tuple[float, ModelConfig] | None = None
    for dim in WIDTHS[max(0, near - NEIGHBOURS) : near + NEIGHBOURS]:
        for made in _shapes(config, dim):
            off = abs(count(made) / parameters - 1)
            if best is None or off < best[0]:
                best = off, made
    assert best is not None
    if best[0] > 0.25:
        raise SettingsError(
            f"no model of this kind has about {parameters:,} parameters with "
            f"{config.vocab_size:,} tokens",
            do=f"the nearest has {count(best[1]):,} (--size {count(best[1])}); or choose another"
            " size of the vocabulary",
        )
    return best[1]


def _shapes(config: ModelConfig, dim: int) -> list[ModelConfig]:
    """Return configs of this width with the suitable depths, the shallowest first."""
    made = []
    for layers in sorted({max(2, round(dim / ASPECT) + more) for more in (-1, 0, 1, 2)}):
        depth = {"n_layers": layers}
        if config.decoder_layers:
            depth["decoder_layers"] = layers
        heads = dim // _head_width(dim)
        made.append(_with(config, {"dim": dim, "n_heads": heads, **depth}))
    return made


def count(config: ModelConfig) -> int:
    """Return the number of parameters of matrices and embeddings, including all experts; norms and
    biases, less than one percent, are not counted.
    """
    config = replace(config, experts_per_token=config.n_experts)
    tables = config.vocab_size * (1 if config.tied else 2) + (
        config.max_length if config.position == "learned" else 0
    )
    return config.matrix_parameters + tables * (config.embedding_dim or config.dim)


def _with(config: ModelConfig, axes: dict[str, Any]) -> ModelConfig:
    """Return the config with some axes changed, and with the axes that depend on these adjusted
    unless they were given too.
    """
    if "dim" in axes and axes["dim"] != config.dim:
        ratio = config.ffn_dim / config.dim
        heads = axes.get("n_heads", max(1, axes["dim"] // config.head_dim))
        axes = {"ffn_dim": max(8, round(axes["dim"] * ratio / 8) * 8), "n_heads": heads, **axes}
    if config.head_width and "n_heads" in axes:
        axes = {"head_width": axes.get("dim", config.dim) // axes["n_heads"], **axes}
    if "n_heads" in axes:
        axes = {"kv_heads": axes["n_heads"] if config.kv_heads else 0, **axes}
    if config.decoder_layers and "n_layers" in axes:
        axes = {"decoder_layers": axes["n_layers"], **axes}
    if config.windows and "n_layers" in axes:
        axes = {"windows": _repeated(config.windows, axes["n_layers"]), **axes}
    if config.unrotated and "n_layers" in axes:
        skipped = [int(layer in config.unrotated) for layer in range(config.n_layers)]
        pattern = _repeated(tuple(skipped), axes["n_layers"])
        unrotated = tuple(layer for layer, skips in enumerate(pattern) if skips)
        axes = {"unrotated": unrotated, **axes}
    if math.isclose(config.logit_scale, config.dim**-0.5) and "dim" in axes:
        axes = {"logit_scale": axes["dim"] ** -0.5, **axes}
    if math.isclose(config.embedding_scale, config.dim**0.5) and "dim" in axes:
        axes = {"embedding_scale": axes["dim"] ** 0.5, **axes}
    for each, of_decoder in (("n_heads", "decoder_heads"), ("ffn_dim", "decoder_ffn_dim")):
        if getattr(config, of_decoder) and each in axes:
            axes = {of_decoder: axes[each], **axes}
    names = {field.name for field in fields(config)}
    unknown = [name for name in axes if name not in names]
    if unknown:
        raise SettingsError(f"model.{unknown[0]} is not an axis of the model")
    return replace(config, **axes)


def _repeated(windows: tuple[int, ...], layers: int) -> tuple[int, ...]:
    """Return the pattern of the windows for another number of layers."""
    periods = range(1, len(windows) + 1)
    period = next(p for p in periods if all(w == windows[i % p] for i, w in enumerate(windows)))
    repeated = tuple(windows[i % period] for i in range(layers))
    return repeated if any(repeated) else ()


def roundtrip_or_raise(family: Family, config: ModelConfig) -> ModelConfig:
    """Return the config if the family's published form can express it; ModelError names the axis
    that it cannot. Dropout only matters in training, so it need not be expressible.
    """
    unsaid = {"tied", "max_length", "dropout", "attention_dropout"}
    again = family.read({"model_type": family.name} | family.write(config))
    for field in fields(config):
        # T5's config does not determine whether the output is tied (see `infer_from_weights`), and
        # T5 has no maximum length.
        if getattr(config, field.name) != getattr(again, field.name) and field.name not in unsaid:
            raise ModelError(
                f"{family.name} cannot express model.{field.name} ="
                f" {getattr(config, field.name)!r}",
                do="leave it out, or choose another model.preset",
            )
    return config


def parse_count(text: str) -> int:
    """Return a number written like `10M`, `1.5B` or `124e6`."""
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmbt]?)\s*", text.lower())
    try:
        value = (
            float(match[1]) * {"": 1, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}[match[2]]
            if match
            else 0.0
        )
    except ValueError:
        value = 0.0
    if not 1 <= value < 1e15:
        raise SettingsError(
            f"{text!r} is not a number of parameters or tokens", do="write it like 10M or 1.5B"
        )
    return round(value)
