"""Formats of weight matrices: takes a checkpoint, and the format in which its matrices are to be
held; returns a model with matrices in that format.
"""

from typing import TypeVar

import torch
from torch import nn

from langue.errors import ModelError
from langue.hub.checkpoint import Checkpoint
from langue.model.weight_kinds import AnyWeight, quantize
from langue.model.weight_linear import planned_kinds, with_weights
from langue.runtime import in_threads

STORED = "stored"  # the format of the file
M = TypeVar("M", bound=nn.Module)


class WeightPlan:
    """The formats in which a checkpoint's matrices are to be held.

    held: a format, or "stored". table: the format of token embeddings and output matrix.
    """

    def __init__(self, checkpoint: Checkpoint, held: str, table: str | None = None) -> None:
        self.checkpoint = checkpoint
        self.stored = held == STORED
        self.kind = "fp32" if self.stored else held
        self.table = table
        self.made: dict[str, AnyWeight] = {}
        there = {weight.kind for weight in checkpoint.stored.values() if weight.is_quantized}
        if there and not self.stored and there != {held}:
            raise ModelError(
                f"the model is quantised already ({', '.join(sorted(there))}), and to quantise"
                " twice adds one error to the other",
                where=str(checkpoint.folder),
                do="take the model that it was made from",
            )

    def prepare(self, module: nn.Module, prefix: str = "") -> None:
        """Convert the matrices for a module on the meta device; prefix: precedes the module's names
        in the checkpoint. In the checkpoint they are replaced by tensors of the same shapes that
        take no memory.
        """
        weights = self.checkpoint.weights
        kinds = planned_kinds(module, self.kind, self.table)
        names = [name for name in kinds if f"{prefix}{name}.weight" in weights]

        def made(name: str) -> AnyWeight:
            key = f"{prefix}{name}.weight"
            if key in self.checkpoint.stored:
                return self.checkpoint.stored.pop(key)
            matrix = weights.pop(key)
            weights[key] = torch.zeros(()).expand(matrix.shape)
            narrow = matrix.dtype == torch.bfloat16
            own = ("bf16" if narrow else "fp32") if self.stored else kinds[name]
            try:
                return quantize(matrix, own)
            except ModelError as error:
                what = f"{key}: {error.what}"
                raise ModelError(what, where=str(self.checkpoint.folder), do=error.do) from error

        self.made = dict(zip(names, in_threads(made, names), strict=True))
        # quantized tensors that are not linear maps, such as position embeddings
        for key, weight in self.checkpoint.stored.items():
            weights[key] = weight.dequantize()

    def apply(self, module: M, prefix: str = "") -> M:
        """Return the module, whose other tensors are loaded, with the converted matrices; prefix:
        precedes the module's names in theirs.
        """
        given = {name.removeprefix(prefix): weight for name, weight in self.made.items()}
        return with_weights(module, self.kind, self.table, given)
