"""What arrives: weights under the names that Flax and Mesh TensorFlow give them. What leaves:
`transformers`' names.

Both store the matrix of a linear map as (in, out), and call it a kernel; scales and embeddings have
words of their own.
"""

import re
from collections.abc import Mapping

from torch import Tensor

WEIGHTS = ("kernel", "scale", "embedding")


def from_flax(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`bert/encoder/layer/0/output/dense/kernel` -> `bert.encoder.layer.0.output.dense.weight`."""
    weights: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        *path, last = name.removeprefix("params/").split("/")
        kept = tensor.t() if last == "kernel" and tensor.ndim == 2 else tensor
        weights[".".join([*path, "weight" if last in WEIGHTS else last])] = kept
    return weights


def from_mesh(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """T5's: `encoder/block_003/layer_000/SelfAttention/q` ->
    `encoder.block.3.layer.0.SelfAttention.q.weight`. What an optimiser kept of each (`_slot_`) and
    the step are left out.
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
