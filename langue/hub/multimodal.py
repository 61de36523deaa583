"""What arrives: the config.json and the weights of a model of texts and images. What leaves: those
of its text side, as a language model alone has them.

Such a config has the text's under `text_config`, or beside the images' `vision_config`.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

# What configs call the text side, where its axes and names are those of a family of texts.
_SIDES = {
    "qwen2_vl": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
}
# What is said beside the text side and holds for it.
_COMMON = (
    *("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"),
    *("torch_dtype", "dtype", "quantization_config", "transformers_version"),
)
_OF_TEXT = re.compile(r"^(?:model\.language_model|language_model\.model)\.")
_OF_OTHERS = re.compile(
    r"^(?:model\.)?(?:vision_tower|visual|vision_model|multi_modal_projector|embed_vision)\."
)


def text_side(published: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the text side."""
    side = {key: value for key, value in published.items() if key != "vision_config"}
    if isinstance(own := published.get("text_config"), dict):
        # tied where nobody says it, as the classes have it; an output matrix that is there is used
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
    """The same for tokens of texts, whose places in time, height and width are one number."""
    kept = {key: value for key, value in rope.items() if not key.startswith("mrope_")}
    for key in ("type", "rope_type"):
        if kept.get(key) == "mrope":
            kept[key] = "default"
    return kept


def text_weights(theirs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """The weights of the text side, as a language model alone calls them, and how many others
    there are.
    """
    kept = {}
    for name, tensor in theirs.items():
        if _OF_OTHERS.match(name) is None:
            name = _OF_TEXT.sub("model.", name)
            kept[name.removeprefix("language_model.")] = tensor
    return kept, len(theirs) - len(kept)
