"""The state of the machine: device, precision, seed and rank, which are the only global state.

Capabilities are queried, not derived from the name of the hardware; for example, a processor
without bf16 instructions computes in fp32.
"""

import mmap
import os
import resource
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from langue.errors import SettingsError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    import torch

_batch_tokens: ContextVar[int | None] = ContextVar("batch_tokens", default=None)
T = TypeVar("T")
R = TypeVar("R")


def device() -> "torch.device":
    """Return the accelerator of this process if there is one, else the CPU; `LANGUE_DEVICE`
    overrides this.
    """
    import torch

    forced = os.environ.get("LANGUE_DEVICE")
    if forced:
        return _device_called(forced)
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


@cache
def _device_called(name: str) -> "torch.device":
    """Return the device with this name; SettingsError if PyTorch cannot use it here."""
    import torch

    try:
        found = torch.device(name)
    except RuntimeError:
        raise SettingsError(
            f"the device {name!r} is not known", do="give cpu, cuda or mps"
        ) from None
    usable: dict[str, Callable[[], bool]]
    usable = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if found.type in usable and not usable[found.type]():
        raise SettingsError(
            f"PyTorch finds no device {name!r} here", do="give another, or leave it out"
        )
    return found


@contextmanager
def computing(device: str | None = None, batch_tokens: int | None = None) -> Iterator[None]:
    """Within this context, compute on this device (None: the default) and predict with this many
    tokens per batch (None: the default).
    """
    if batch_tokens is not None and batch_tokens < 1:
        raise SettingsError(f"batch_tokens = {batch_tokens}: none would be read", do="give more")
    before = os.environ.get("LANGUE_DEVICE")
    if device is not None:
        _device_called(device)
        os.environ["LANGUE_DEVICE"] = device
    chosen = _batch_tokens.set(batch_tokens)
    try:
        yield
    finally:
        _batch_tokens.reset(chosen)
        if device is not None:
            os.environ.pop("LANGUE_DEVICE")
            os.environ.update({} if before is None else {"LANGUE_DEVICE": before})


def batch_tokens(usual: int) -> int:
    """Return the tokens per batch in prediction: those given to `computing`, else the usual
    number.
    """
    return _batch_tokens.get() or usual


@cache
def has_bf16(kind: str) -> bool:
    """Return whether devices of type `kind` ("cpu", "cuda") multiply bf16 matrices in hardware."""
    import torch

    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind == "cpu":
        capability = torch.cpu.get_capabilities()
        return bool(
            capability.get("avx512_bf16") or capability.get("amx_bf16") or capability.get("bf16")
        )
    return False


@cache
def has_amx_bf16() -> bool:
    """Return whether the processor multiplies tiles of bf16 matrices (AMX).

    PyTorch's attention kernel is made for that, and needs no oneDNN code for each text length; on
    other processors ours is faster (docs/LOG.md).
    """
    import torch

    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def precision(name: str = "auto") -> "torch.dtype":
    """Return the dtype of matrix products: `bf16`, `fp32`, or what the hardware supports
    (`auto`).
    """
    import torch

    if name == "auto":
        return torch.bfloat16 if has_bf16(device().type) else torch.float32
    known = {"bf16": torch.bfloat16, "fp32": torch.float32}
    if name not in known:
        raise SettingsError(f"the precision {name!r} is not known", do="give fp32, bf16 or auto")
    return known[name]


def check_compiler() -> None:
    """Raise SettingsError if PyTorch's compiler does not work: it needs a C++ compiler and, for
    GPUs, Triton.
    """
    import torch

    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8, device=device()))
    except RuntimeError as error:  # all its errors are RuntimeErrors
        raise SettingsError(
            "train.compile: PyTorch's compiler does not work here:"
            f" {str(error).strip().splitlines()[0]}",
            do=(
                "install a C++ compiler (g++ or clang++; for a GPU Triton, too), or leave"
                " train.compile out"
            ),
        ) from error


@cache
def keep_freed_memory() -> bool:
    """Make glibc keep memory that one training step frees for the next one.

    Otherwise the same pages are returned to the system, requested again and zeroed in every step.
    Returns whether it worked; with other C libraries nothing changes.
    """
    if "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}):
        return False
    import ctypes

    mallopt = ctypes.CDLL(None).mallopt
    trim = -1
    pad = -2
    mmaps = -4  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX of malloc.h
    return all([mallopt(trim, -1), mallopt(pad, 2**26), mallopt(mmaps, 0)])


@cache
def share_heaps(count: int = 2) -> bool:
    """Limit the number of glibc's heaps for the threads of this process.

    By default there are eight for each core, each of which keeps its peak memory. Returns whether
    it worked; see `keep_freed_memory`.
    """
    if "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}):
        return False
    import ctypes

    arenas = -8  # M_ARENA_MAX of malloc.h
    return bool(ctypes.CDLL(None).mallopt(arenas, count))


class HeapTrimmer:
    """Returns memory that `keep_freed_memory` has kept when it is far more than the steps need.

    Long-lived allocations (oneDNN's code for a new shape) end up between freed blocks, and the
    pieces that remain are too small for the next step: without trimming, three gigabytes became
    twelve over a thousand steps with different shapes.
    """

    # number of steps after which the memory in use is representative, and the factor above which it
    # is trimmed
    settled = 8
    factor = 1.5

    def __init__(self) -> None:
        self.steps = 0
        self.needed = 0

    def maybe_trim(self) -> None:
        """Trim if necessary; call this after each step."""
        held = resident_memory()
        if held is None:
            return
        self.steps += 1
        if self.steps <= self.settled:
            self.needed = held
        elif held > self.factor * self.needed:
            give_freed_memory()
            self.steps = 0


@contextmanager
def evaluating(model: "torch.nn.Module") -> Iterator[None]:
    """Put the model into evaluation mode, without dropout, and restore its mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def give_freed_memory() -> None:
    """Make glibc return all unused pages to the system."""
    import ctypes

    ctypes.CDLL(None).malloc_trim(0)


def resident_memory() -> int | None:
    """Return the resident memory of this process in bytes, or None if the system has no Linux-like
    /proc.
    """
    try:
        with open("/proc/self/statm", "rb") as handle:
            return int(handle.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return None


TRAINING_KERNELS = 4096  # as many as an epoch has batch shapes
# about 90 MB, including PyTorch's part; steps then take up to an eighth longer
SERVING_KERNELS = 128


def keep_kernels(count: int | None = None) -> None:
    """Set the number of products for which oneDNN, which multiplies bf16 matrices on CPUs, caches
    its code.

    It generates code for each shape, which takes half a millisecond or more, and up to a megabyte.
    Training, with lengths that differ from batch to batch, needs a large cache; a server, whose
    memory should stay constant, a small one; None: oneDNN's default of 1,024. PyTorch, which caches
    as many again for each thread, is set to a small number. Both read these values at their first
    product; existing environment variables take precedence.
    """
    os.environ.setdefault("LRU_CACHE_CAPACITY", "64")
    if count is not None:
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(count))


@cache
def disable_cudnn_sdpa() -> None:
    """Make PyTorch compute attention on GPUs without cuDNN.

    cuDNN plans a kernel for each shape ("may trigger excessive recompilation", says PyTorch), and
    here no two batches, and no two decoding steps, have the same shapes.
    """
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)


def release_pages(read: "torch.Tensor") -> None:
    """Release the memory under a tensor that will not be read again and is part of something
    larger.

    This mainly concerns the pages of a mapped file, which otherwise stay resident as long as it is
    mapped.
    """
    if read.device.type != "cpu" or not hasattr(mmap, "MADV_DONTNEED"):
        return
    import ctypes

    page = mmap.PAGESIZE  # only whole pages, since partial ones are shared with neighbours
    begin = -(-read.data_ptr() // page) * page
    end = (read.data_ptr() + read.nbytes) // page * page
    if begin < end:
        ctypes.CDLL(None).madvise(
            ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED
        )


def in_threads(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return the results of `work` on all items, in order; for work that torch does without holding
    the GIL.
    """
    from concurrent.futures import ThreadPoolExecutor

    # the cores that this process may use
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(cores) as pool:
        return list(pool.map(work, items))


@cache
def _workers(threads: int) -> "ThreadPoolExecutor":
    """Return a persistent pool of threads: a new thread would have to request all its memory from
    the system again.
    """
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(threads, "langue")


os.register_at_fork(after_in_child=_workers.cache_clear)  # a forked process has none


def parallel_map(work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Yield the results of `work` on all items, in order.

    As many items run at a time as torch has threads, each in a single thread.
    """
    import torch

    threads = torch.get_num_threads()
    if threads == 1 or len(items) <= 1:
        yield from map(work, items)
        return

    def alone(item: T) -> R:
        # This is not done when the worker starts, which may be after all items are done, because it
        # also affects threads that start later.
        torch.set_num_threads(1)
        return work(item)

    try:
        yield from _workers(threads).map(alone, items)
    finally:
        torch.set_num_threads(threads)


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def restarted() -> bool:
    """Return whether torchrun has restarted this process after one of its group failed
    (`--max-restarts`).
    """
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


@cache
def device_memory(place: "torch.device") -> int | None:
    """Return the total memory of a GPU in bytes, or None for other devices."""
    import torch

    return torch.cuda.get_device_properties(place).total_memory if place.type == "cuda" else None


def free_memory(place: "torch.device") -> int:
    """Return the available memory of a device in bytes; for a CPU, Linux's estimate without
    swapping, or half of the total memory on other systems.
    """
    import torch

    if place.type == "cuda":
        return torch.cuda.mem_get_info(place)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as handle:
            fields = dict(line.split(":", 1) for line in handle)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def peak_memory() -> int:
    """Return the peak memory so far in bytes: allocated on the GPU if there is one, else
    resident.
    """
    place = device()
    if place.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(place)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
