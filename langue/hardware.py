"""Published properties of accelerators, with their sources: peak throughput, memory and power."""

import difflib
import time
from dataclasses import dataclass

import torch

from langue.errors import SettingsError
from langue.runtime import TRAINING_KERNELS, device, keep_kernels


@dataclass(frozen=True)
class Hardware:
    name: str
    # FLOP/s of dense bf16 matrix products with fp32 accumulation; of fp32 products if the hardware
    # has no bf16
    peak: float
    memory: float  # bytes
    watts: float | None  # maximum power of one device; None: unknown
    node: int  # devices in a node
    linked: int  # devices in a node that have direct links (NVLink, Infinity Fabric)
    source: str
    measured: bool = False  # measured here, not taken from a data sheet
    bf16: bool = True
    kind: str = "cuda"  # PyTorch's device type

    @property
    def room(self) -> float | None:
        """Return the memory of a GPU in bytes, or None for other devices."""
        return self.memory if self.kind == "cuda" else None


GB = 1e9
TABLE = {
    each.name: each
    for each in (
        Hardware("a100", 312e12, 80 * GB, 400, 8, 8, "NVIDIA A100 80GB SXM data sheet"),
        Hardware("a100-40gb", 312e12, 40 * GB, 400, 8, 8, "NVIDIA A100 40GB SXM data sheet"),
        Hardware(
            "h100",
            989.4e12,
            80 * GB,
            700,
            8,
            8,
            "NVIDIA H100 SXM data sheet (1,979 TFLOP/s are with sparsity)",
        ),
        Hardware(
            "h200",
            989.4e12,
            141 * GB,
            700,
            8,
            8,
            "NVIDIA H200 SXM data sheet (1,979 TFLOP/s are with sparsity)",
        ),
        Hardware(
            "b200",
            2250e12,
            180 * GB,
            1000,
            8,
            8,
            "NVIDIA HGX B200 data sheet (4,500 TFLOP/s are with sparsity)",
        ),
        Hardware(
            "l40s",
            362.05e12,
            48 * GB,
            350,
            8,
            1,
            "NVIDIA L40S data sheet (733 TFLOP/s are with sparsity)",
        ),
        Hardware(
            "rtx4090", 165.2e12, 24 * GB, 450, 8, 1, "NVIDIA Ada GPU architecture white paper"
        ),
        Hardware(
            "rtx3090", 71.0e12, 24 * GB, 350, 8, 2, "NVIDIA Ampere GA102 architecture white paper"
        ),
        Hardware("mi300x", 1307.4e12, 192 * GB, 750, 8, 8, "AMD Instinct MI300X data sheet"),
    )
}


NOISE = ("nvidia", "geforce", "amd", "instinct", "sxm5", "sxm4", "sxm", "hbm3e", "hbm3", "80gb")


def read(name: str) -> Hardware | None:
    """Return the hardware with this name in any spelling (H100, RTX 4090, NVIDIA A100-SXM4-80GB),
    or None if it is not in the table.
    """
    plain = _plain(name)
    return next((known for known in TABLE.values() if plain == _plain(known.name)), None)


def find(name: str) -> Hardware:
    """Return the hardware like `read`; SettingsError if it is not in the table."""
    known = read(name)
    if known is None:
        close = difflib.get_close_matches(_plain(name), TABLE, 1, 0.4)
        hint = f"did you mean {close[0]}? " if close else ""
        raise SettingsError(
            f"the hardware {name!r} is not known", do=f"{hint}known: here, {', '.join(TABLE)}"
        )
    return known


def _plain(name: str) -> str:
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    for word in NOISE:
        plain = plain.replace(word, "")
    return plain


# (rows, inner, columns) of the product that is timed. A GPU would spend more time on launching the
# CPU's product than on computing it.
PRODUCT = {"cpu": (1024, 384, 1536), "cuda": (8192, 8192, 8192)}


def matmul_rate(dtype: torch.dtype) -> float:
    """Measure this machine's rate of matrix products in FLOP/s, with the shape of a Transformer's
    products.
    """
    # training's settings, since these may be the first products of a training run
    keep_kernels(TRAINING_KERNELS)
    rows, inner, columns = PRODUCT.get(device().type, PRODUCT["cpu"])
    a = torch.randn(rows, inner, device=device()).to(dtype)
    b = torch.randn(inner, columns, device=device()).to(dtype)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        (a @ b).sum().item()
        best = min(best, time.perf_counter() - began)
    return 2 * a.shape[0] * b.numel() / best


def peak(dtype: torch.dtype) -> float:
    """Return the peak FLOP/s of this process's device: the published value for a known GPU with
    bf16, otherwise a measured one.
    """
    if device().type == "cuda" and dtype == torch.bfloat16:
        known = read(torch.cuda.get_device_name(device()))
        if known is not None:
            return known.peak
    return matmul_rate(dtype)
