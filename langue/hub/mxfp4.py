"""What arrives: a folder's tensors, some in MXFP4. What leaves: the same, those in bf16, exactly.

MXFP4 (Open Compute Project 2023, Microscaling Formats 1.0): 32 numbers of four bits, E2M1, share a
power of two. A matrix `X` (..., O, I) is published as `X_blocks` (..., O, I / 32, 16), of each byte
the lower half first, and `X_scales` (..., O, I / 32), the exponents plus 127; and is here, as in
the files that have it in bf16, (..., I, O).
"""

import torch
from torch import Tensor

from langue.errors import ModelError

_BLOCKS = "_blocks"
_SCALES = "_scales"
_BYTES = 16  # of a block
_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # E2M1; the fourth bit is the sign
_DO = "download the model again, or take one in bf16"


def widened(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """ModelError where blocks and scales are not of one matrix, or a number is not finite."""
    found: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        stem = name.removesuffix(_BLOCKS)
        if stem != name and tensor.dtype == torch.uint8:
            found[stem] = _widened(stem, tensor, theirs.get(stem + _SCALES))
        elif not (name.endswith(_SCALES) and name.removesuffix(_SCALES) + _BLOCKS in theirs):
            found[name] = tensor
    return found


def _widened(name: str, blocks: Tensor, scales: Tensor | None) -> Tensor:
    """blocks (..., O, G, 16), scales (..., O, G) -> (..., 32 G, O)."""
    shape = blocks.shape[:-1]
    paired = scales is not None and scales.dtype == torch.uint8 and scales.shape == shape
    if scales is None or not paired or blocks.ndim < 3 or blocks.shape[-1] != _BYTES:
        sizes = "no scales" if scales is None else f"scales {[*scales.shape]}"
        raise ModelError(
            f"{name}: blocks {[*blocks.shape]} with {sizes} are not those of MXFP4", do=_DO
        )
    pairs = _pairs()
    powers = torch.exp2(torch.arange(256, dtype=torch.float64) - 127)
    *before, rows, groups = shape
    out = torch.empty(*before, rows, 2 * _BYTES * groups, dtype=torch.bfloat16)
    places = out.view(-1, rows, groups, 2 * _BYTES)
    each_scales = scales.reshape(-1, rows, groups)
    # one matrix at a time: what is looked up is held in eight bytes a number
    for place, block, scale in zip(
        places, blocks.reshape(-1, rows, groups, _BYTES), each_scales, strict=True
    ):
        numbers = pairs[block.long()].flatten(-2)  # (O, G, 32)
        place.copy_(numbers * powers[scale.long()].float()[..., None])
        if not bool(place.isfinite().all()):
            raise ModelError(f"{name}: a number is not finite", do=_DO)
    return out.mT


def _pairs() -> Tensor:
    """The two numbers in each byte: (256, 2)."""
    values = torch.tensor([*_MAGNITUDES, *(-each for each in _MAGNITUDES)])
    byte = torch.arange(256)
    return torch.stack([values[byte & 15], values[byte >> 4]], dim=-1)
