"""What arrives: the machine as it is. What leaves: device, precision, seed and rank, the
only global state.

The hardware is asked, never recognised by name: a processor without bf16 instructions computes in
fp32.
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
    """The accelerator of this process where there is one, else the CPU. `LANGUE_DEVICE`
    overrides.
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
    """SettingsError where there is no such device that PyTorch can use here."""
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
    """Within, computing on this device (None: the one that is chosen without it), and predicting
    with so many tokens a batch.
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
    """Tokens of a batch that is predicted: as `computing` was told, else the usual number."""
    return _batch_tokens.get() or usual


@cache
def has_bf16(kind: str) -> bool:
    """Whether `kind` ("cpu", "cuda") multiplies bf16 matrices in hardware."""
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
    """Whether the processor multiplies bf16 matrices tile by tile (AMX). PyTorch's attention kernel
    is made for that, and needs no code of oneDNN's for each length of texts; on other processors
    ours is faster (docs/LOG.md).
    """
    import torch

    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def precision(name: str = "auto") -> "torch.dtype":
    """The dtype of the matrix products: `bf16`, `fp32`, or by asking the hardware (`auto`)."""
    import torch

    if name == "auto":
        return torch.bfloat16 if has_bf16(device().type) else torch.float32
    known = {"bf16": torch.bfloat16, "fp32": torch.float32}
    if name not in known:
        raise SettingsError(f"the precision {name!r} is not known", do="give fp32, bf16 or auto")
    return known[name]


def check_compiler() -> None:
    """SettingsError where PyTorch's compiler does not work: it calls a C++ compiler, and for GPUs
    Triton.
    """
    import torch

    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8, device=device()))
    except RuntimeError as error:  # all that it raises are
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
    """Have glibc keep what one training step frees for the next: given back to the system, the same
    pages are asked for again, and zeroed, in every step. Whether it does; by other C libraries
    nothing is changed.
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
    """Have the threads of this process allocate from so many heaps of glibc's: by default there are
    eight a core, each of which keeps what it once needed. Whether it is so; see
    `keep_freed_memory`.
    """
    if "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}):
        return False
    import ctypes

    arenas = -8  # M_ARENA_MAX of malloc.h
    return bool(ctypes.CDLL(None).mallopt(arenas, count))


class HeapTrimmer:
    """Gives back what `keep_freed_memory` has kept, once it is far more than the steps need: what
    lives on (oneDNN's code for a new shape) comes to lie between what is freed, the pieces left are
    too small for the next step, and three gigabytes become twelve over a thousand steps whose
    shapes differ.
    """

    # steps until as much is held as is needed; more than that many times it is too much
    settled = 8
    factor = 1.5

    def __init__(self) -> None:
        self.steps = 0
        self.needed = 0

    def maybe_trim(self) -> None:
        """To be called after each step."""
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
    """Within, the model is in evaluation mode, without dropout; afterwards in its former mode."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def give_freed_memory() -> None:
    """Have glibc give all pages that nothing lies on back to the system."""
    import ctypes

    ctypes.CDLL(None).malloc_trim(0)


def resident_memory() -> int | None:
    """Bytes of this process that are in memory now; None where the system does not tell in Linux's
    way.
    """
    try:
        with open("/proc/self/statm", "rb") as handle:
            return int(handle.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return None


TRAINING_KERNELS = 4096  # of as many shapes as an epoch's batches have
SERVING_KERNELS = 128  # about 90 MB with what PyTorch keeps; steps are then up to an eighth slower


def keep_kernels(count: int | None = None) -> None:
    """Have oneDNN, which multiplies bf16 matrices on processors, keep the code of so many products:
    it makes some for each shape, which is half a millisecond's work or more and up to a megabyte.
    A training, whose lengths differ from batch to batch, wants many; a server, whose memory is to
    stay what it is, few; None is for oneDNN's usual 1,024. PyTorch, who keeps as many again for
    each thread, keeps few beside. Both ask at their first product; settings of the environment's
    own stand.
    """
    os.environ.setdefault("LRU_CACHE_CAPACITY", "64")
    if count is not None:
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(count))


@cache
def disable_cudnn_sdpa() -> None:
    """Have PyTorch compute attention on GPUs by kernels that are there: cuDNN's is planned for each
    shape anew ("may trigger excessive recompilation", says PyTorch), and here no two batches, and
    no two tokens that are written, have shapes in common.
    """
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)


def release_pages(read: "torch.Tensor") -> None:
    """Give back the memory under a tensor that nobody will read again, while it is yet part of
    something larger: the pages of a mapped file, above all, which stay resident otherwise for as
    long as the file is mapped.
    """
    if read.device.type != "cpu" or not hasattr(mmap, "MADV_DONTNEED"):
        return
    import ctypes

    page = mmap.PAGESIZE  # whole pages only: its neighbours are on the others
    begin = -(-read.data_ptr() // page) * page
    end = (read.data_ptr() + read.nbytes) // page * page
    if begin < end:
        ctypes.CDLL(None).madvise(
            ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED
        )


def in_threads(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """What `work` makes of each item, in their order; for work that torch does, outside of Python's
    lock.
    """
    from concurrent.futures import ThreadPoolExecutor

    # that are ours
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(cores) as pool:
        return list(pool.map(work, items))


@cache
def _workers(threads: int) -> "ThreadPoolExecutor":
    """Threads that live on: a new one has to ask the system for all the memory that the last one
    had.
    """
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(threads, "langue")


os.register_at_fork(after_in_child=_workers.cache_clear)  # a fork has none of its parent's threads


def parallel_map(work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """What `work` makes of each item, in their order: as many at a time as torch has threads, each
    in one thread.
    """
    import torch

    threads = torch.get_num_threads()
    if threads == 1 or len(items) <= 1:
        yield from map(work, items)
        return

    def alone(item: T) -> R:
        # Not at the worker's start, which may come after all items are done: this changes it for
        # later threads, too.
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
    """Whether torchrun has started this process again, after one of its group had died
    (`--max-restarts`).
    """
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


@cache
def device_memory(place: "torch.device") -> int | None:
    """Bytes of a GPU's memory, in use or not; None: it is no GPU."""
    import torch

    return torch.cuda.get_device_properties(place).total_memory if place.type == "cuda" else None


def free_memory(place: "torch.device") -> int:
    """Bytes that may still be taken on a device; of a processor as Linux estimates it without
    swapping, else half of what is there.
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
    """Most memory that was in use at once so far, in bytes: a GPU's where there is one, else what
    was resident.
    """
    place = device()
    if place.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(place)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
