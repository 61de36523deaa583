"""Native kernels: takes operands of inference on a CPU; returns the results of kernels.cpp, which
is compiled on first use.

PyTorch handles 8- and 4-bit weights with general kernels and is slow with few rows; and the bits of
a row depend on how many others are in the batch. kernels.cpp has neither problem. It needs a C++
compiler on the user's machine: if there is none, or anything else fails, `native` returns None and
warns once, and callers use PyTorch's operations.

The library is cached in the user's cache folder under a hash of the source, the compiler, its
options and the processor, so that no outdated one is loaded. It ends with its own SHA-256, so that
no damaged one is; and it is only loaded if it belongs to this user alone. LANGUE_NATIVE=0 in the
environment disables native kernels.
"""

import ctypes
import errno
import hashlib
import math
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from langue.model.native_check import passes_self_test
from langue.progress import warn

SOURCE = Path(__file__).with_name("kernels.cpp")
COMPILERS = ("c++", "g++", "clang++")
OPTIONS = ("-std=c++17", "-O3", "-ffp-contract=off", "-shared", "-fPIC", "-pthread")
# Options that enable all instructions of this processor: for most compilers, for those that only
# know the other name, and for those that know neither.
TUNING = (("-march=native",), ("-mcpu=native",), ())
PATIENCE = 300  # time limit of the compiler in seconds, for a busy machine
DIGEST = 32  # bytes of the SHA-256 at the end of the library
PAGE = 16  # tokens of a KV cache page, as in kernels.cpp
KINDS = {"fp32": 0, "bf16": 1, "int8": 2, "int4": 3}
GROUPS = {"int8": (16, 32), "int4": (32,)}  # group sizes that have kernels
FAULTS = {
    1: "these weights have a group size that no kernel reads",
    2: "a page is outside of the pages",
    3: "a length is below 1 or beyond its pages",
}


class StoredWeight(Protocol):
    """A matrix (O, K) in its stored format: what `Native.linear` reads of langue's `Weight`."""

    @property
    def kind(self) -> str: ...

    @property
    def data(self) -> Tensor: ...

    @property
    def scales(self) -> Tensor | None: ...

    @property
    def mins(self) -> Tensor | None: ...

    @property
    def group(self) -> int: ...


class NativeError(Exception):
    """Why there are no native kernels; never shown as an error, since everything works without
    them.
    """


class Native:
    """The functions of kernels.cpp; `instructions` is the instruction set that they were compiled
    for.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer = ctypes.c_void_p
        number = ctypes.c_int
        long = ctypes.c_int64
        real = ctypes.c_float
        library.langue_instructions.restype = ctypes.c_char_p
        self.instructions: str = library.langue_instructions().decode()
        self._linear = library.langue_linear
        self._linear.argtypes = [pointer, pointer, pointer, pointer, long, number]
        self._described: dict[int, _Described] = {}
        self._attend = library.langue_attend
        self._attend.argtypes = [
            *(pointer, pointer, long, long, long, pointer, long, pointer, long, long),
            *(real, number, real, pointer, pointer, pointer, number),
        ]
        self._write = library.langue_write
        self._write.argtypes = [pointer, pointer, pointer, long, long, long, pointer, long]
        self._rotate = library.langue_rotate
        self._rotate.argtypes = [pointer, pointer, pointer, long, long, long, long]

    def reads(self, weight: StoredWeight) -> bool:
        """Return whether `linear` has a kernel for these weights."""
        if weight.kind in ("fp32", "bf16"):
            return True
        groups = GROUPS.get(weight.kind, ())
        return weight.group in groups and not (weight.kind == "int8" and weight.mins is not None)

    def linear(self, x: Tensor, weight: StoredWeight, bias: Tensor | None = None) -> Tensor:
        """Return x W^T + b, where the bits of each row do not depend on the other rows.

        x (M, K) float32 -> (M, O) float32, without gradients. Integer weights are multiplied with x
        rounded to 8 bits, in blocks of 32 elements scaled by their largest absolute value; a block
        becomes NaN if an element is not finite. Raises ValueError if an operand does not have the
        memory layout that the kernels read.
        """
        # As few steps of Python as possible: if a model exceeds the caches, each of them waits for
        # memory, 50 times per token.
        known = self._described.get(id(weight))
        if known is None or known.weight() is not weight or known.at != weight.data.data_ptr():
            known = self._describe(weight)
        rows, inputs = x.shape
        if inputs != known.inputs:
            raise ValueError(f"rows of {inputs} elements, weights for {known.inputs}")
        if x.dtype is not torch.float32 or not x.is_cpu or not x.is_contiguous():
            _check(x, "x")
        if bias is not None:
            _check(bias, "the bias")
            if bias.shape[0] != known.outputs:
                raise ValueError(f"a bias of {len(bias)} for {known.outputs} outputs")
        y = torch.empty(rows, known.outputs)
        fault = self._linear(
            known.address,
            None if bias is None else bias.data_ptr(),
            x.data_ptr(),
            y.data_ptr(),
            rows,
            torch.get_num_threads(),
        )
        if fault:
            raise ValueError(FAULTS[fault])
        return y

    def _describe(self, weight: StoredWeight) -> "_Described":
        """Return the description of a matrix for the kernels; it is checked once, as long as it
        stays at the same address.
        """
        _check_weight(weight)
        key = id(weight)
        known = _Described(weight, lambda _: self._described.pop(key, None))
        self._described[key] = known
        return known

    def attend(
        self,
        q: Tensor,
        pages: Tensor,
        tables: Tensor,
        lengths: Tensor,
        scale: float = 0.0,
        window: int = 0,
        cap: float = 0.0,
        slopes: Tensor | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """Attention of each sequence's last token to the whole sequence, or to its last `window`
        tokens.

        q (N, H, K): one query for each sequence. pages (2, P, G, PAGE, K): keys and values of a
        layer. tables (N, most pages) int32: the pages of each sequence, in order. lengths (N,)
        int32. scale: 0 for 1 / sqrt(K). cap: c tanh(score / c), 0 for none. slopes (H,): multiplied
        by the distance of a key and subtracted from the scores. sinks (H,): an additional score
        without a value. Returns (N, H * K). Raises ValueError if a page or a length is impossible,
        or an operand does not have the memory layout that the kernel reads.
        """
        sequences, heads, width = q.shape
        _check(q, "q")
        kv_heads = _check_pages(pages, width)
        _check(tables, "tables", torch.int32)
        _check(lengths, "lengths", torch.int32)
        # shape[0], because `len` of a tensor is a Python function
        lines = tables.shape[0]
        if heads % kv_heads or lines != sequences or lengths.shape[0] != sequences:
            raise ValueError(
                f"{heads} heads of queries for {kv_heads} of keys, or {lines} tables and"
                f" {len(lengths)} lengths for {sequences} sequences"
            )
        for what, each in (("slopes", slopes), ("sinks", sinks)):
            if each is None:
                continue
            _check(each, what)
            if len(each) != heads:
                raise ValueError(f"{len(each)} {what} for {heads} heads")
        out = torch.empty(sequences, heads * width)
        fault = self._attend(
            q.data_ptr(),
            pages.data_ptr(),
            pages.shape[1],
            kv_heads,
            width,
            tables.data_ptr(),
            tables.shape[1],
            lengths.data_ptr(),
            sequences,
            heads,
            scale or 1 / math.sqrt(width),
            window,
            cap,
            None if slopes is None else slopes.data_ptr(),
            None if sinks is None else sinks.data_ptr(),
            out.data_ptr(),
            torch.get_num_threads(),
        )
        _refuse(fault)
        return out

    def write(self, k: Tensor, v: Tensor, pages: Tensor, slots: Tensor) -> None:
        """Write keys and values to slots in a layer's pages.

        k, v (T, G, K); pages (2, P, G, PAGE, K); slots (T,) int64: page * PAGE + position. Raises
        ValueError as `attend` does; nothing is written then.
        """
        tokens, heads, width = k.shape
        _check(k, "k")
        _check(v, "v")
        _check(slots, "slots", torch.int64)
        if _check_pages(pages, width) != heads or v.shape != k.shape or slots.shape[0] != tokens:
            raise ValueError(f"keys {k.shape}, values {v.shape}, pages {pages.shape} do not fit")
        _refuse(
            self._write(
                k.data_ptr(),
                v.data_ptr(),
                pages.data_ptr(),
                pages.shape[1],
                heads,
                width,
                slots.data_ptr(),
                tokens,
            )
        )

    def rotate(self, x: Tensor, cosines: Tensor, sines: Tensor) -> None:
        """Rotate the first R elements of each head in place: element i is paired with i + R / 2.

        x (T, H, K); cosines, sines (T, R / 2). Raises ValueError if the shapes do not match (Su et
        al. 2021, arXiv:2104.09864).
        """
        tokens, heads, width = x.shape
        _check(x, "x")
        _check(cosines, "cosines")
        _check(sines, "sines")
        half = cosines.shape[1]
        if cosines.shape != sines.shape or len(cosines) != tokens or 2 * half > width:
            raise ValueError(f"rotations {cosines.shape} for {x.shape} do not fit")
        self._rotate(x.data_ptr(), cosines.data_ptr(), sines.data_ptr(), tokens, heads, width, half)


class _Record(ctypes.Structure):
    """The struct `Weight` of kernels.cpp."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("mins", ctypes.c_void_p),
        ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("kind", ctypes.c_int32),
        ("group", ctypes.c_int32),
        ("halves", ctypes.c_int32),
    )


class _Described:
    """A matrix that was checked, and its address at that time."""

    def __init__(self, weight: StoredWeight, forget: Callable[[object], object]) -> None:
        scales = weight.scales
        mins = weight.mins
        self.weight = weakref.ref(weight, forget)
        self.at = weight.data.data_ptr()
        self.tables = (scales, mins)  # references that keep these tensors alive
        self.outputs = len(weight.data)
        self.inputs = _inputs(weight)
        self.record = _Record(
            self.at,
            None if scales is None else scales.data_ptr(),
            None if mins is None else mins.data_ptr(),
            self.outputs,
            self.inputs,
            KINDS[weight.kind],
            weight.group,
            scales is not None and scales.dtype == torch.float16,
        )
        self.address = ctypes.addressof(self.record)


def _inputs(weight: StoredWeight) -> int:
    return weight.data.shape[1] * (2 if weight.kind == "int4" else 1)


def _check(x: Tensor, name: str, dtype: torch.dtype = torch.float32) -> None:
    if x.dtype is not dtype or not x.is_contiguous() or not x.is_cpu:
        raise ValueError(f"{name}: {x.dtype} on {x.device}, or with gaps; {dtype} wanted")


def _check_pages(pages: Tensor, width: int) -> int:
    """Return the number of key/value heads."""
    _check(pages, "pages")
    shape = pages.shape
    if len(shape) != 5 or shape[0] != 2 or shape[3] != PAGE or shape[4] != width:
        raise ValueError(f"pages {tuple(shape)}; (2, P, G, {PAGE}, {width}) wanted")
    return shape[2]


_DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "int8": torch.int8,
    "int4": torch.uint8,
}


def _check_weight(weight: StoredWeight) -> None:
    kind = weight.kind
    if kind not in _DTYPES:
        raise ValueError(f"weights of kind {kind!r}; known: {', '.join(_DTYPES)}")
    data = weight.data
    inputs = _inputs(weight)
    _check(data, "the weights", _DTYPES[kind])
    if kind in ("fp32", "bf16"):
        return
    if inputs % 32 or weight.scales is None:
        raise ValueError(f"{kind}: rows of {inputs} elements, not of whole 32, or no scales")
    for name, table in (("scales", weight.scales), ("mins", weight.mins)):
        if table is None:
            continue
        if table.dtype != torch.float16:
            _check(table, name)
        if table.dtype != weight.scales.dtype or not table.is_contiguous():
            raise ValueError(f"{name}: {table.dtype}, or with gaps; as the scales wanted")
        if table.numel() * weight.group != len(data) * inputs:
            raise ValueError(f"{table.numel()} {name} for {len(data)} x {inputs} weights")


def _refuse(fault: int) -> None:
    if fault:
        raise ValueError(FAULTS[fault])


@cache
def native() -> Native | None:
    """Return the kernels built for this processor; None, after one warning, if that fails."""
    if os.environ.get("LANGUE_NATIVE", "1") == "0":
        return None
    try:
        return load_native()
    except NativeError as error:
        warn(
            f"no native kernels: {error}; slower operations of PyTorch are used. Install a C++"
            " compiler (g++ or clang++), or set LANGUE_NATIVE=0 to keep PyTorch's without this line"
        )
        return None


def load_native(tuning: Sequence[tuple[str, ...]] = TUNING) -> Native:
    """Return kernels from the cache folder, or build them; raise NativeError if neither is
    possible.

    tuning: compiler options to try in turn, until the result works on this machine.
    """
    compiler = find_compiler()
    version = _run([*compiler, "--version"], 60).splitlines()[0]
    problems = []
    for options in tuning:
        command = [*compiler, *OPTIONS, *options]
        parts = (SOURCE.read_text("utf-8"), version, *command, platform.machine(), _processor())
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
        try:
            return _kept_or_built(command, f"kernels-{key}.so")
        except NativeError as error:
            problems.append(str(error))
    raise NativeError(problems[0])


def find_compiler() -> list[str]:
    """Return the command of a C++ compiler: CXX in the environment, or the first one on the
    PATH.
    """
    named = shlex.split(os.environ.get("CXX", ""))
    if named and shutil.which(named[0]):
        return named
    found = next((name for name in COMPILERS if shutil.which(name)), None)
    if found is None:
        raise NativeError(f"no C++ compiler ({', '.join(COMPILERS)}) is on the PATH")
    return [found]


def cache_folder() -> Path:
    """Return the folder of cached kernels: langue/ in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "langue"
    except RuntimeError as error:
        raise OSError(errno.ENOENT, "this user has no home folder") from error


def _processor() -> str:
    """Return the instruction set of the processor, since machines may share a cache folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return "\n".join(sorted(set(named)))


def _kept_or_built(command: list[str], name: str) -> Native:
    try:
        folder = cache_folder()
        path = folder / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = _checked(path)
        if kept is not None:
            return kept
        with tempfile.TemporaryDirectory(dir=folder) as beside:
            built = _build(command, Path(beside))
            checked = _checked(built)
            if checked is None:
                raise NativeError("the library that was built does not work")
            built.replace(path)  # atomic; of several processes, the last one's file stays
            return checked
    except OSError as error:
        warn(
            f"native kernels are built anew for each process, as they cannot be kept: {error}."
            " Make that folder writable, or name another one in XDG_CACHE_HOME"
        )
    with tempfile.TemporaryDirectory() as elsewhere:  # the file is not needed once it is loaded
        checked = _checked(_build(command, Path(elsewhere)))
    if checked is None:
        raise NativeError("the library that was built does not work")
    return checked


def _build(command: list[str], folder: Path) -> Path:
    path = folder / "kernels.so"
    _run([*command, "-o", str(path), str(SOURCE)], PATIENCE)
    content = path.read_bytes()
    path.write_bytes(content + hashlib.sha256(content).digest())
    path.chmod(0o700)
    return path


def _run(command: list[str], patience: int) -> str:
    try:
        done = subprocess.run(command, capture_output=True, timeout=patience, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NativeError(f"{command[0]}: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        first = next((line for line in said if "error" in line), said[0] if said else "no word")
        raise NativeError(f"{command[0]} failed: {first[:300]}")
    return done.stdout.decode(errors="replace")


def _checked(path: Path) -> Native | None:
    """Return the library at `path` if it is intact, owned by this user alone, and correct."""
    try:
        found = path.lstat()
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    others = stat.S_IWGRP | stat.S_IWOTH
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & others:
        return None
    if hashlib.sha256(content[:-DIGEST]).digest() != content[-DIGEST:]:
        return None
    try:
        kernels = Native(ctypes.CDLL(str(path)))
    except (OSError, AttributeError):
        return None
    return kernels if passes_self_test(kernels) else None
