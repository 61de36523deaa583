"""Measures the error of each matrix of a quantized model against the original model."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from langue.model.weight_linear import held_weights
from langue.tasks.judgement import Table


@dataclass(frozen=True)
class MatrixError:
    """The error of one matrix against the original one."""

    name: str
    kind: str
    relative: float  # Frobenius norm of the error divided by that of the matrix
    largest: float  # largest absolute error
    nbytes: int


@torch.no_grad()
def matrix_errors(before: nn.Module, after: nn.Module) -> list[MatrixError]:
    """Return the error of each matrix that `after` stores as a Weight, in the order of
    the model.
    """
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
    """Return a table of the matrices, those with the largest relative error first."""
    worst = sorted(errors, key=lambda error: -error.relative)
    rows = [(error.name, error.kind, error.relative, error.largest) for error in worst]
    columns = ("matrix", "held as", "relative error", "largest error")
    return Table("Matrices, the farthest off first", columns, rows, shares=(2,))
