"""Rename weights from Flax and Mesh TensorFlow to the names of `transformers`.

Both frameworks store the matrix of a linear map as (in, out) and call it "kernel"; norm weights are
called "scale", and tables "embedding".
"""

import re
from collections.abc import Mapping

from torch import Tensor

WEIGHTS = ("kernel", "scale", "embedding")


def from_flax(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename `bert/encoder/layer/0/output/dense/kernel` to
    `bert.encoder.layer.0.output.dense.weight`.
    """
    weights: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        *path, last = name.removeprefix("params/").split("/")
        kept = tensor.t() if last == "kernel" and tensor.ndim == 2 else tensor
        weights[".".join([*path, "weight" if last in WEIGHTS else last])] = kept
    return weights


def from_mesh(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename T5's `encoder/block_003/layer_000/SelfAttention/q` to
    `encoder.block.3.layer.0.SelfAttention.q.weight`. Optimiser state (`_slot_`) and the step are
    left out.
    """
    weights: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        if "_slot_" in name or name == "global_step":
            continue
        path = re.sub(r"(block|layer)_(\d+)", lambda m: f"{m[1]}/{int(m[2])}", name).split("/")
        path = (
            ["lm_head"]
            if path[:2] == ["decoder", "logits"]
            else path[:-1]
            if path[-1] in WEIGHTS
            else path
        )
        flat = tensor.ndim < 2 or name.endswith("embedding")
        weights[".".join([*path, "weight"])] = tensor if flat else tensor.t()
    return weights
