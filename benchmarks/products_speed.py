"""Measure the CPU time of one thread for all matrix products of GPT-2's step, for each kind of
weights, and optionally for llama.cpp.

The measure is thread time on one core, the minimum over many rounds, with the sides in turn: on a
shared machine, only ratios within one run are reliable. The weights are random; time does not
depend on them. llama.cpp is called through the libraries in npm's `@node-llama-cpp/linux-x64`
(MIT): `npm pack` it, unpack it, and give the folder that contains libggml-base.so. Weights have the
layout of its own loader: those of Q4_0 are repacked with eight interleaved rows.
"""

import ctypes
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import results
from benchmarks.machine import facts
from langue.model.native import native
from langue.model.native_check import random_weight

LAYER = [(2304, 768), (768, 768), (3072, 768), (768, 3072)]
HEAD = (50257, 768)
MOST_WITH_HEAD = 16  # rows; a prefill only needs the logits of its last token
KINDS = ("fp32", "bf16", "int8", "int4")
GGML = {"f16": 1, "q8_0": 8, "q4_0": 2}
RIVALS = {"bf16": "f16", "int8": "q8_0", "int4": "q4_0"}
FLOAT32 = 0
GRAPH_BYTES = 2**24

Side = Callable[[], object]


def run(rows: list[int], rounds: int, layers: int, ggml: Path | None) -> None:
    torch.set_num_threads(1)
    machine = facts()
    text = (
        f"### Products of GPT-2's step: {layers} layers, {machine['processor']}, one thread\n\n"
        "| rows | side | ms, CPU time | rows/s | GB/s of weights | of F.linear's time |\n"
        "|---|---|---|---|---|---|\n"
    )
    found = []
    for count in rows:
        shapes = LAYER * layers + ([HEAD] if count <= MOST_WITH_HEAD else [])
        sides, sizes = _sides(shapes, count, ggml)
        best = {name: float("inf") for name in sides}
        for _ in range(rounds):
            for name, step in sides.items():
                best[name] = min(best[name], _thread_time(step))
        for name, seconds in best.items():
            share = seconds / best["F.linear fp32"]
            text += (
                f"| {count} | {name} | {1000 * seconds:.2f} | {count / seconds:.0f} |"
                f" {sizes[name] / seconds / 1e9:.1f} | {share:.2f} |\n"
            )
            found.append({"rows": count, "side": name, "seconds": seconds})
        for ours, theirs in RIVALS.items():
            if f"llama.cpp {theirs}" in best:
                ratio = best[f"llama.cpp {theirs}"] / best[f"langue {ours}"]
                text += f"| {count} | langue {ours} is {ratio:.2f} times as fast as {theirs} ||||\n"
    print(text)
    print(results.save("products", {"machine": machine, "found": found}, text))


def _thread_time(step: Side) -> float:
    began = time.thread_time()
    step()
    return time.thread_time() - began


def _sides(
    shapes: list[tuple[int, int]], rows: int, ggml: Path | None
) -> tuple[dict[str, Side], dict[str, int]]:
    kernels = native()
    if kernels is None:
        raise SystemExit("no native kernels here: nothing to compare")
    draw = torch.Generator().manual_seed(0)
    x = {width: torch.randn(rows, width, generator=draw) for width in {i for _, i in shapes}}
    sides: dict[str, Side] = {}
    sizes: dict[str, int] = {}

    matrices = [torch.randn(shape, generator=draw) for shape in shapes]
    sides["F.linear fp32"] = lambda: [F.linear(x[w.shape[1]], w) for w in matrices]
    sizes["F.linear fp32"] = sum(w.nbytes for w in matrices)
    # The memory bandwidth of this core: sum the words of the int8 weights. They are ones, since
    # unwritten zeros all share one page, which stays in the cache.
    words = torch.ones(sum(o * i for o, i in shapes) // 8, dtype=torch.int64)
    sides["memory read"] = words.sum
    sizes["memory read"] = words.nbytes
    for kind in KINDS:
        weights = [random_weight(kind, shape, draw) for shape in shapes]
        inputs = [x[i] for _, i in shapes]
        pairs = list(zip(inputs, weights, strict=True))
        sides[f"langue {kind}"] = lambda pairs=pairs: [kernels.linear(i, w) for i, w in pairs]  # type: ignore[misc]
        tables = [t for w in weights for t in (w.data, w.scales) if t is not None]
        sizes[f"langue {kind}"] = sum(t.nbytes for t in tables)
    if ggml is not None:
        library = _Ggml(ggml)
        for name in GGML:
            side, size = library.products(name, matrices, x)
            sides[f"llama.cpp {name}"] = side
            sizes[f"llama.cpp {name}"] = size
    return sides, sizes


class _Parameters(ctypes.Structure):  # ggml_init_params
    _fields_ = [
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    ]


class _Ggml:
    """Those functions of llama.cpp's tensor library that multiply matrices."""

    def __init__(self, folder: Path) -> None:
        base = ctypes.CDLL(str(folder / "libggml-base.so"), ctypes.RTLD_GLOBAL)
        vnni = torch.cpu.get_capabilities().get("avx512_vnni")
        cpu = ctypes.CDLL(str(folder / f"libggml-cpu-{'icelake' if vnni else 'haswell'}.so"))
        pointer = ctypes.c_void_p
        for function in ("init", "new_tensor_2d", "mul_mat", "new_graph", "get_data"):
            getattr(base, f"ggml_{function}").restype = pointer
        for function in ("nbytes", "quantize_chunk"):
            getattr(base, f"ggml_{function}").restype = ctypes.c_size_t
        base.ggml_backend_alloc_ctx_tensors_from_buft.restype = pointer
        self.repack = cpu._Z35ggml_backend_cpu_repack_buffer_typev
        self.repack.restype = pointer
        cpu.ggml_cpu_init()
        self.base = base
        self.cpu = cpu

    def _context(self, size: int, no_alloc: bool) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.base.ggml_init(_Parameters(size, None, no_alloc)))

    def products(self, name: str, matrices: list[Tensor], x: dict[int, Tensor]) -> tuple[Side, int]:
        base = self.base
        kind = GGML[name]
        plain = self._context(sum(w.nbytes for w in matrices) + GRAPH_BYTES, False)
        other = self._context(GRAPH_BYTES, True)
        # the same criterion as in its loader
        layouts = [name == "q4_0" and w.shape[0] % 8 == 0 for w in matrices]
        tensors = []
        for w, repacked in zip(matrices, layouts, strict=True):
            shape = (ctypes.c_int64(w.shape[1]), ctypes.c_int64(w.shape[0]))
            held = other if repacked else plain
            tensors.append(ctypes.c_void_p(base.ggml_new_tensor_2d(held, kind, *shape)))
        if any(layouts):
            base.ggml_backend_alloc_ctx_tensors_from_buft(other, ctypes.c_void_p(self.repack()))
        total = 0
        for w, tensor, repacked in zip(matrices, tensors, layouts, strict=True):
            coded = (ctypes.c_uint8 * base.ggml_nbytes(tensor))()
            base.ggml_quantize_chunk(
                kind,
                ctypes.c_void_p(w.data_ptr()),
                coded,
                ctypes.c_int64(0),
                ctypes.c_int64(w.shape[0]),
                ctypes.c_int64(w.shape[1]),
                None,
            )
            total += len(coded)
            if repacked:
                base.ggml_backend_tensor_set(
                    tensor, coded, ctypes.c_size_t(0), ctypes.c_size_t(len(coded))
                )
            else:
                ctypes.memmove(base.ggml_get_data(tensor), coded, len(coded))
        rows = len(next(iter(x.values())))
        outputs = sum(w.shape[0] for w in matrices)
        work = 4 * rows * (outputs + 8 * max(x)) + 4 * GRAPH_BYTES

        def step() -> None:
            context = self._context(work, False)
            inputs = {}
            for width, values in x.items():
                shape = (ctypes.c_int64(width), ctypes.c_int64(rows))
                inputs[width] = ctypes.c_void_p(base.ggml_new_tensor_2d(context, FLOAT32, *shape))
                ctypes.memmove(base.ggml_get_data(inputs[width]), values.data_ptr(), values.nbytes)
            graph = ctypes.c_void_p(base.ggml_new_graph(context))
            for w, tensor in zip(matrices, tensors, strict=True):
                made = ctypes.c_void_p(base.ggml_mul_mat(context, tensor, inputs[w.shape[1]]))
                base.ggml_build_forward_expand(graph, made)
            self.cpu.ggml_graph_compute_with_ctx(context, graph, 1)
            base.ggml_free(context)

        return step, total
