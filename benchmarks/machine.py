"""Describe this machine, measure its rates of matrix products, and derive lower bounds of time.

The floor of some work is the time of its matrix products alone at the measured rate, over real
tokens only: no padding, no softmax, no norm, no optimiser. The fraction of it that is reached says
how much could still be gained without other hardware or fewer operations.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from langue.model.config import ModelConfig
from langue.runtime import has_bf16

SETS = (
    "avx2",
    "avx512_f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "sve",
    "bf16",
    "i8mm",
)
TOKENS = 5440  # 32 reviews of 170 tokens


def facts() -> dict[str, Any]:
    """Return the cores, the instruction sets that torch reports, versions and threads, and the load
    of the machine.
    """
    capability = torch.cpu.get_capabilities()
    return {
        "processor": capability.get("cpu_name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "instruction_sets": [name for name in SETS if capability.get(name)],
        "bf16": has_bf16("cpu"),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def precisions() -> list[str]:
    """Return fp32, and bf16 only if it is in hardware: emulated, some of its layouts are 100 times
    slower.
    """
    return ["fp32", "bf16"] if has_bf16("cpu") else ["fp32"]


def rate(
    config: ModelConfig,
    dtype: torch.dtype,
    repeats: int = 9,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the FLOP/s of the products in one layer's forward and backward pass, the best of
    `repeats`.
    """
    products: list[tuple[torch.Tensor, torch.Tensor]] = []
    sizes = [(config.dim, 3 * config.dim), (config.dim, config.dim), (config.dim, config.ffn_dim)]
    for inner, outer in [*sizes, (config.ffn_dim, config.dim)]:
        x = torch.randn(TOKENS, inner, dtype=dtype)
        w = torch.randn(outer, inner, dtype=dtype)
        g = torch.randn(TOKENS, outer, dtype=dtype)
        products += [(x, w.t()), (g, w), (g.t(), x)]
    outputs = [torch.empty(a.shape[0], b.shape[1], dtype=dtype) for a, b in products]

    def once() -> None:
        for (a, b), out in zip(products, outputs, strict=True):
            torch.mm(a, b, out=out)

    flops = sum(2 * a.shape[0] * a.shape[1] * b.shape[1] for a, b in products)
    return flops / min(timed(once, repeats, clock))


def timed(
    work: Callable[[], object], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Return the seconds of each of `repeats` calls, after one warm-up call."""
    work()
    seconds = []
    for _ in range(repeats):
        began = clock()
        work()
        seconds.append(clock() - began)
    return seconds


def rates(config: ModelConfig, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Return the FLOP/s in each precision. clock: time.process_time for the rate per CPU second,
    which other work on the machine does not affect.
    """
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    return {name: rate(config, dtypes[name], clock=clock) for name in precisions()}


def floor_seconds(
    config: ModelConfig, lengths: list[int], flops_per_second: float, *, training: bool
) -> float:
    """Return the time of the matrix products of these sequences; training takes three times a
    forward pass.
    """
    return (3 if training else 1) * config.forward_flops(lengths) / flops_per_second


def spread(values: list[float]) -> float:
    """Return (largest - smallest) / median, the relative spread of the rounds."""
    return (max(values) - min(values)) / statistics.median(values) if len(values) > 1 else 0.0
