"""Read and write the rotary positions and attention windows of published configs, in the current
and the former notation.
"""

import math
from collections.abc import Mapping
from typing import Any

from langue.errors import ModelError
from langue.hub.config_keys import Config
from langue.model.config import ModelConfig

_KEYS = {
    # sections concern the axes of images, which coincide in text
    "none": {"mrope_section", "mrope_interleaved"},
    "linear": {"factor"},
    "dynamic": {"factor"},
    "yarn": {
        "factor",
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "truncate",
        "finetuned",  # whether the model was finetuned, which changes nothing
    },
    "llama3": {"factor", "low_freq_factor", "high_freq_factor"},
    "longrope": {"factor", "attention_factor", "short_factor", "long_factor"},
}
_STRETCHED = ("yarn", "llama3", "longrope")  # the kinds that give the original context length
_COMMON = {
    "rope_type",
    "type",
    "rope_theta",
    "partial_rotary_factor",
    "original_max_position_embeddings",
}


def read_rope(
    config: Config,
    *,
    head_dim: int,
    base: float = 10_000.0,
    given: Mapping[str, Any] | None = None,
    part: float | None = None,
) -> dict[str, Any]:
    """Return the rotary axes of a config.

    given: the current `rope_parameters`, if the family nests them. part: the default share of a
    head that is rotated; None: the family rotates whole heads.
    """
    rope = dict(given if given is not None else _said(config))
    kind = rope.get("rope_type", rope.get("type", "default"))
    kind = "none" if kind in ("default", "mrope") else kind
    if kind not in _KEYS:
        raise ModelError(
            f"config: rope_type = {kind!r} is not known", do=f"known: default, {', '.join(_KEYS)}"
        )
    odd = [
        key for key, value in rope.items() if value is not None and key not in _COMMON | _KEYS[kind]
    ]
    if odd:
        raise ModelError(f"config: {odd[0]} of rope_type {kind!r} is not supported")
    usual = 1.0 if part is None else part
    share: Any = rope.get("partial_rotary_factor", config.get("partial_rotary_factor", usual))
    theta: Any = rope.get("rope_theta", config.get("rope_theta", base))
    before = "original_max_position_embeddings"
    length = (config.get(before) or rope.get(before)) if kind in _STRETCHED else None
    factor = rope.get("factor", 1.0 if kind == "none" else None)
    if factor is None and kind in ("yarn", "longrope") and length:
        factor = config["max_position_embeddings"] / length
    if factor is None or not float(factor) > 0:
        raise ModelError(f"config: factor = {factor!r} of rope_type {kind!r} is no scale")
    # no family that rotates whole heads supports this
    if share != 1.0 and part is None and kind == "none":
        raise ModelError(
            f"config: partial_rotary_factor = {share!r} is not supported for this family"
        )
    axes: dict[str, Any] = {
        "position": "rotary",
        "rotary_base": float(theta),
        "rotary_dim": 0 if share == 1.0 else int(head_dim * share),
        "rotary_scaling": kind,
        "rotary_factor": float(factor),
        "rotary_length": length or config["max_position_embeddings"],
    }
    if kind == "llama3":
        axes |= {
            "rotary_low": float(rope["low_freq_factor"]),
            "rotary_high": float(rope["high_freq_factor"]),
        }
    if kind == "yarn":
        axes |= {
            "rotary_low": float(rope.get("beta_slow") or 1),
            "rotary_high": float(rope.get("beta_fast") or 32),
        }
        axes["rotary_amplitude"] = _amplitude(rope, float(factor))
        axes["rotary_truncate"] = bool(rope.get("truncate", True))
    if kind == "longrope":
        axes |= {
            "rotary_short": tuple(rope.get("short_factor") or ()),
            "rotary_long": tuple(rope.get("long_factor") or ()),
            "rotary_amplitude": rope.get("attention_factor")
            or longrope_amplitude(float(factor), axes["rotary_length"]),
        }
    return axes


def _said(config: Config) -> dict[str, Any]:
    """Return the `rope_parameters`, or the same under their former name."""
    today, before = (config.get(name) or {} for name in ("rope_parameters", "rope_scaling"))
    if today and before and today != before:
        what = "config: rope_parameters and rope_scaling are both there and differ"
        raise ModelError(what, do="write all of it in rope_parameters")
    return dict(today or before)


def _amplitude(rope: Mapping[str, Any], factor: float) -> float:
    """Return YaRN's factor of cosines and sines: 0.1 ln(s) + 1, unless the config specifies it."""

    def scaled(by: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1.0

    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return scaled(rope["mscale"]) / scaled(rope["mscale_all_dim"])
    return scaled(1.0)


def longrope_amplitude(factor: float, length: int) -> float:
    """Return LongRoPE's factor of cosines and sines: sqrt(1 + ln(s) / ln(length))."""
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(length))


def write_rope(config: ModelConfig) -> dict[str, Any]:
    """Return the current `rope_parameters` of one kind of layer."""
    kind = config.rotary_scaling
    rope: dict[str, Any] = {
        "rope_type": "default" if kind == "none" else kind,
        "rope_theta": config.rotary_base,
    }
    if config.n_rotary_dims != config.head_dim:
        rope["partial_rotary_factor"] = config.n_rotary_dims / config.head_dim
    if kind != "none":
        rope["factor"] = config.rotary_factor
    if kind in _STRETCHED:
        rope["original_max_position_embeddings"] = config.rotary_length or config.max_length
    if kind == "llama3":
        rope |= {"low_freq_factor": config.rotary_low, "high_freq_factor": config.rotary_high}
    if kind == "yarn":
        rope |= {"beta_slow": config.rotary_low, "beta_fast": config.rotary_high}
        rope["attention_factor"] = config.rotary_amplitude
        rope["truncate"] = config.rotary_truncate
    if kind == "longrope":
        rope |= {"short_factor": [*config.rotary_short], "long_factor": [*config.rotary_long]}
        rope["attention_factor"] = config.rotary_amplitude
    return rope


def write_rope_keys(config: ModelConfig) -> dict[str, Any]:
    """Return the rotary keys of transformers 5 and, beside them, those of earlier versions: version
    4 ignores `rope_parameters`, and would silently use its default base.
    """
    rope = write_rope(config)
    scaling = None if config.rotary_scaling == "none" else rope
    return {"rope_parameters": rope, "rope_theta": config.rotary_base, "rope_scaling": scaling}


def write_partial_rope_keys(config: ModelConfig) -> dict[str, Any]:
    """Return `write_rope_keys` for a family that may rotate part of a head; the share is written
    even if it is 1.
    """
    part = {"partial_rotary_factor": config.n_rotary_dims / config.head_dim}
    ropes = write_rope_keys(config)
    for key in ("rope_parameters", "rope_scaling"):
        ropes[key] = ropes[key] and part | ropes[key]
    return ropes | part


def read_two_ropes(
    config: Config, *, head_dim: int, bases: tuple[float, float], old: tuple[str, str]
) -> dict[str, Any]:
    """Return the rotary axes of a family whose windowed layers have a base of their own.

    bases: the (global, local) defaults. old: the former names of these keys.
    """
    nested = config.get("rope_parameters") or {}
    whole = {"rope_theta": config.get(old[0], bases[0])} | (nested.get("full_attention") or {})
    whole |= config.get("rope_scaling") or {}
    local = {"rope_theta": config.get(old[1], bases[1])} | (nested.get("sliding_attention") or {})
    axes = read_rope(config, head_dim=head_dim, given=whole)
    near = read_rope(config, head_dim=head_dim, given=local)
    if near["rotary_scaling"] != "none" or near["rotary_dim"] != axes["rotary_dim"]:
        raise ModelError(
            "config: rope_parameters of sliding_attention other than rope_theta are not supported"
        )
    return axes | {"rotary_local_base": near["rotary_base"]}


def write_two_ropes(config: ModelConfig) -> dict[str, Any]:
    local = {"rope_type": "default", "rope_theta": config.rotary_local_base}
    return {"full_attention": write_rope(config), "sliding_attention": local}


def read_windows(config: Config, window: int | None, pattern: list[bool]) -> tuple[int, ...]:
    """Return the window of each layer; pattern: which layers have one if the config does not list
    `layer_types`.
    """
    types = config.get("layer_types")
    if types is not None:
        unknown = [kind for kind in types if kind not in ("sliding_attention", "full_attention")]
        if unknown:
            raise ModelError(
                f"config: layer_types has {unknown[0]!r}",
                do="known: sliding_attention, full_attention",
            )
        pattern = [kind == "sliding_attention" for kind in types]
    windows = tuple(window if limited and window else 0 for limited in pattern)
    return windows if any(windows) else ()


def write_layer_types(config: ModelConfig) -> list[str]:
    return [
        "sliding_attention" if config.window(i) else "full_attention"
        for i in range(config.n_layers)
    ]


def write_window(config: ModelConfig) -> int | None:
    return next((window for window in config.windows if window), None)
