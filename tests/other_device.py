"""A device that is none: what lies on it lies in memory, and what runs there runs on the processor.

What is written for accelerators is tested on it where there is none: other paths are taken than on
processors, and whatever meets a tensor that is not on the device is refused, as it is there. Speed
and the numbers of other kernels are all that it says nothing about. To be called in a process of
its own: PyTorch has room for one such device.
"""

import types
from typing import Any

import safetensors.torch
import torch
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
aten = torch.ops.aten
# Functions that take tensors of both sides; of indices, accelerators take those of processors.
BOTH = {aten.copy_.default, aten._copy_from.default}
INDEXED = {
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
    aten._index_put_impl_.default,
}
# What autocast does on an accelerator: some operations in its precision, some in fp32, the rest as
# they come.
LOWER = ("linear", "matmul", "mm", "addmm", "bmm", "baddbmm", "scaled_dot_product_attention")
WIDE = ("layer_norm", "softmax.int", "log_softmax.int", "nll_loss", "exp", "log",
    "pow.Tensor_Scalar", "sum",
        "binary_cross_entropy_with_logits", "mse_loss", "norm.Scalar", "rsqrt")  # fmt: skip
# What gives the processor numbers, for which it waits until the device has done all that it was
# told before.
WAITED = {aten._local_scalar_dense.default, aten.nonzero.default}
_kept: list[torch.library.Library] = []


class There(torch.Tensor):
    """A tensor on the device; `here` is where its numbers are. waits: how often the processor asked
    for some."""

    here: torch.Tensor
    waits = 0

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> "There":
        made = torch.Tensor._make_wrapper_subclass(
            cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=torch.device(NAME, 0),
        )  # fmt: skip
        made.here = here
        return made  # type: ignore[no-any-return]

    def tolist(self) -> Any:
        There.waits += 1
        return self.here.tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{self.here.detach()} on {NAME}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        there = [each for each in _tensors((args, kwargs)) if isinstance(each, There)]
        looked = (args[0], kwargs) if func in INDEXED else (args, kwargs)
        strays = [t for t in _tensors(looked) if not isinstance(t, There) and t.ndim]
        if strays and func not in BOTH:
            raise RuntimeError(f"{func}: tensors of two devices, {NAME} and {strays[0].device}")
        leaves = (
            torch.device(kwargs["device"]).type == "cpu"
            if kwargs.get("device") is not None
            else not there
        )
        There.waits += bool(there) and (
            leaves or func in WAITED or func in BOTH and not isinstance(args[0], There)
        )
        own = {
            key: torch.device("cpu") if key == "device" and value is not None else _here(value)
            for key, value in kwargs.items()
        }
        own.pop("pin_memory", None)
        out = func(*tree_map(_here, args), **own)
        if leaves:
            return out
        wrapped = tree_map(lambda t: There(t) if isinstance(t, torch.Tensor) else t, out)
        return return_and_correct_aliasing(func, args, kwargs, wrapped)


def _tensors(tree: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    tree_map(lambda t: found.append(t) if isinstance(t, torch.Tensor) else None, tree)
    return found


def _here(value: Any) -> Any:
    return tree_map(lambda t: t.here if isinstance(t, There) else t, value)


def _factory(op: Any) -> Any:
    def kernel(*args: Any, **kwargs: Any) -> torch.Tensor:
        kept = {key: value for key, value in kwargs.items() if key != "pin_memory"}
        return There(op(*args, **kept | {"device": torch.device("cpu")}))

    return kernel


def _copy_from(
    source: torch.Tensor, into: torch.Tensor, non_blocking: bool = False
) -> torch.Tensor:
    _here(into).copy_(_here(source))
    return into


def _autocast(op: Any, dtype: torch.dtype | None) -> Any:
    """The operation in one precision; None: in autocast's own."""

    def kernel(*args: Any, **kwargs: Any) -> Any:
        wanted = torch.get_autocast_dtype(NAME) if dtype is None else dtype

        def cast(value: Any) -> Any:
            floating = (
                isinstance(value, torch.Tensor)
                and value.is_floating_point()
                and value.dtype != torch.float64
            )
            return value.to(wanted) if floating else value

        with torch._C._ExcludeDispatchKeyGuard(
            torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
        ):
            return op(*tree_map(cast, args), **tree_map(cast, kwargs))

    return kernel


def register() -> None:
    module = types.ModuleType(f"torch.{NAME}")
    seeded: Any = lambda seed: None  # noqa: E731 (its numbers are drawn by the processor's generator)
    offered: dict[str, Any] = {
        "is_available": lambda: True, "device_count": lambda: 1, "current_device": lambda: 0,
        "set_device": lambda index: None, "is_initialized": lambda: True,
        "_is_in_bad_fork": lambda: False,
        "synchronize": lambda device=None: None, "manual_seed": seeded, "manual_seed_all": seeded,
        "get_amp_supported_dtype": lambda: [torch.float16, torch.bfloat16],
    }  # fmt: skip
    vars(module).update(offered)
    _setup_privateuseone_for_python_backend(NAME, backend_module=module)
    library = torch.library.Library("aten", "IMPL")
    for name in ("empty.memory_format", "empty_strided", "arange", "arange.start",
        "arange.start_step", "zeros", "ones",
                 "full", "rand", "randn", "randint", "randint.low", "scalar_tensor", "eye",
                 "linspace"):  # fmt: skip
        base, _, overload = name.partition(".")
        library.impl(
            name, _factory(getattr(getattr(aten, base), overload or "default")), "PrivateUse1"
        )
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    for names, dtype in ((LOWER, None), (WIDE, torch.float32)):
        for name in names:
            base, _, overload = name.partition(".")
            kernel = _autocast(getattr(getattr(aten, base), overload or "default"), dtype)
            library.impl(name, kernel, "AutocastPrivateUse1")
    others = torch.library.Library("_", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    _kept.extend([library, others])
    # safetensors looks for shared memory by addresses, and then brings each tensor here by itself.
    save = safetensors.torch.save_file
    safetensors.torch.save_file = lambda weights, *rest, **more: save(
        {k: w.cpu() for k, w in weights.items()}, *rest, **more
    )
