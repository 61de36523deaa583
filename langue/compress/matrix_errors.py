"""What arrives: a model, and the same with its matrices in fewer bits. What leaves: how far each
matrix is off.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from langue.model.weight_linear import held_weights
from langue.tasks.judgement import Table


@dataclass(frozen=True)
class MatrixError:
    """How far one matrix is from what it was made from."""

    name: str
    kind: str
    relative: float  # the root of the squared errors' sum over that of the squared numbers' sum
    largest: float  # of all errors, as they are
    nbytes: int


@torch.no_grad()
def matrix_errors(before: nn.Module, after: nn.Module) -> list[MatrixError]:
    """The error of each matrix that `after` holds as a Weight, in the model's order."""
    found = []
    for name, weight in held_weights(after).items():
        exact = before.get_submodule(name).weight
        assert isinstance(exact, torch.Tensor)
        exact = exact.float()
        off = weight.dequantize() - exact
        whole = float(exact.norm())
        relative = float(off.norm()) / whole if whole else 0.0
        found.append(
            MatrixError(name, weight.kind, relative, float(off.abs().max()), weight.nbytes)
        )
    return found


def table_of_errors(errors: Sequence[MatrixError]) -> Table:
    """The matrices, those that are farthest off first."""
    worst = sorted(errors, key=lambda error: -error.relative)
    rows = [(error.name, error.kind, error.relative, error.largest) for error in worst]
    columns = ("matrix", "held as", "relative error", "largest error")
    return Table("Matrices, the farthest off first", columns, rows, shares=(2,))
