"""Tensors in MXFP4, converted to bf16 without loss.

In MXFP4 (Open Compute Project 2023, Microscaling Formats 1.0), 32 numbers of four bits (E2M1) share
a power of two. A matrix `X` (..., O, I) is published as `X_blocks` (..., O, I / 32, 16), with the
lower half of each byte first, and `X_scales` (..., O, I / 32), the exponents plus 127. In bf16 the
matrix is (..., I, O), here and in published files.
"""

import torch
from torch import Tensor

from langue.errors import ModelError

_BLOCKS = "_blocks"
_SCALES = "_scales"
_BLOCK_BYTES = 16
_BLOCK_SIZE = 32  # numbers
_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # E2M1; the fourth bit is the sign
_DO = "download the model again, or take one in bf16"


def widened(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replace each pair of blocks and scales by its matrix in bf16.

    ModelError where blocks and scales do not belong together, or a number is not finite.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        stem = name.removesuffix(_BLOCKS)
        is_blocks = stem != name and tensor.dtype == torch.uint8
        if is_blocks:
            scales = theirs.get(stem + _SCALES)
            found[stem] = _to_bf16(stem, tensor, scales)
        elif not _is_scales(name, theirs):
            found[name] = tensor
    return found


def _is_scales(name: str, theirs: dict[str, Tensor]) -> bool:
    blocks = name.removesuffix(_SCALES) + _BLOCKS
    return name.endswith(_SCALES) and blocks in theirs


def _to_bf16(name: str, blocks: Tensor, scales: Tensor | None) -> Tensor:
    """Convert blocks (..., O, G, 16) and scales (..., O, G) to a matrix (..., 32 G, O)."""
    scales = _checked_scales(name, blocks, scales)
    *before, rows, groups = scales.shape
    numbers_of_byte = _byte_values()
    exponents = torch.arange(256, dtype=torch.float64) - 127
    powers = torch.exp2(exponents).float()
    out = torch.empty(*before, rows, groups * _BLOCK_SIZE, dtype=torch.bfloat16)
    targets = out.view(-1, rows, groups, _BLOCK_SIZE)
    all_blocks = blocks.reshape(-1, rows, groups, _BLOCK_BYTES)
    all_scales = scales.reshape(-1, rows, groups)
    # One matrix at a time, since the index tensor takes eight bytes per number.
    for target, block, scale in zip(targets, all_blocks, all_scales, strict=True):
        pairs = numbers_of_byte[block.long()]  # (O, G, 16, 2)
        numbers = pairs.flatten(-2)  # (O, G, 32)
        factors = powers[scale.long()]  # (O, G)
        target.copy_(numbers * factors[..., None])
        is_finite = target.isfinite().all()
        if not bool(is_finite):
            raise ModelError(f"{name}: a number is not finite", do=_DO)
    return out.mT


def _checked_scales(name: str, blocks: Tensor, scales: Tensor | None) -> Tensor:
    """Return the scales if shape and dtype match those of the blocks; ModelError otherwise."""
    if scales is not None:
        is_pair = scales.dtype == torch.uint8 and scales.shape == blocks.shape[:-1]
        is_matrix = blocks.ndim >= 3 and blocks.shape[-1] == _BLOCK_BYTES
        if is_pair and is_matrix:
            return scales
    found = "no scales" if scales is None else f"scales {[*scales.shape]}"
    raise ModelError(
        f"{name}: blocks {[*blocks.shape]} with {found} are not those of MXFP4",
        do=_DO,
    )


def _byte_values() -> Tensor:
    """Return the two numbers that each byte encodes, (256, 2)."""
    magnitudes = torch.tensor(_MAGNITUDES)
    values = torch.cat([magnitudes, -magnitudes])  # (16,)
    byte = torch.arange(256)
    low = values[byte & 15]
    high = values[byte >> 4]
    return torch.stack([low, high], dim=-1)
