"""Extract the text part of a model that also reads images, as a plain language model.

The text part of such a config lies under `text_config`, or at the top level beside `vision_config`.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

# The `model_type` of text parts whose axes and names are those of a text family.
_SIDES = {
    "qwen2_vl": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
}
# Top-level keys that also apply to the text part.
_COMMON = (
    *("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"),
    *("torch_dtype", "dtype", "quantization_config", "transformers_version"),
)
_OF_TEXT = re.compile(r"^(?:model\.language_model|language_model\.model)\.")
_OF_OTHERS = re.compile(
    r"^(?:model\.)?(?:vision_tower|visual|vision_model|multi_modal_projector|embed_vision)\."
)


def text_side(published: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the text part."""
    side = {key: value for key, value in published.items() if key != "vision_config"}
    if isinstance(own := published.get("text_config"), dict):
        # tied by default, as in the published classes; an output matrix in the file is still used
        side = (
            {"tie_word_embeddings": True}
            | own
            | {key: side[key] for key in _COMMON if side.get(key) is not None}
        )
    kind = side.get("model_type")
    side["model_type"] = _SIDES.get(str(kind), kind)
    for key in ("rope_scaling", "rope_parameters"):
        if isinstance(side.get(key), dict):
            side[key] = _of_one_position(side[key])
    return side | {"architectures": published.get("architectures")}


def _of_one_position(rope: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rotary settings for text tokens, whose positions in time, height and width are
    equal.
    """
    kept = {key: value for key, value in rope.items() if not key.startswith("mrope_")}
    for key in ("type", "rope_type"):
        if kept.get(key) == "mrope":
            kept[key] = "default"
    return kept


def text_weights(theirs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Return the weights of the text part under the names of a plain language model, and the number
    of the other weights.
    """
    kept = {}
    for name, tensor in theirs.items():
        if _OF_OTHERS.match(name) is None:
            name = _OF_TEXT.sub("model.", name)
            kept[name.removeprefix("language_model.")] = tensor
    return kept, len(theirs) - len(kept)
