"""Sharded tensors and checkpoints: takes tensors of which this process may hold only a part;
returns the part or the whole, or writes a checkpoint to which every process contributes its part.

`fully_shard` shards every weight by rows like `torch.chunk`: the first processes hold equal parts,
the last ones the rest, which may be nothing. Tensor parallelism shards some weights by columns, and
stacked matrices each on its own. A tensor that is not sharded is its own only part, so that callers
need not distinguish.

The checkpoint is PyTorch's distributed one in its safetensors form: one shard file for each
process, with the position of every tensor in the header, from which any number of processes can
read. (Its default form contains a pickle, which may run code.)
"""

import shutil
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor

from langue.errors import RunError
from langue.files import complete_folder, unreadable, write_json
from langue.hub.weights import check_safetensors
from langue.runtime import rank

# attribute of a weight: the numbers of rows of the matrices stacked in it (queries, keys, values),
# each of which is sharded on its own
PARTS = "parts"


def is_dtensor(tensor: Tensor) -> bool:
    """Return whether it is a DTensor, without importing the class, which takes half a second."""
    return hasattr(tensor, "to_local")


def is_row_sharded(tensor: Tensor) -> bool:
    """Return whether each process holds all of it, or contiguous rows."""
    placements = getattr(tensor, "placements", ())
    return not hasattr(tensor, PARTS) and all(placement.is_shard(0) for placement in placements)


def local_shard(tensor: Tensor) -> Tensor:
    """Return the part that this process holds; writing to it writes to the tensor."""
    return tensor.to_local() if is_dtensor(tensor) else tensor  # type: ignore[attr-defined]


def gather_full(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """Return the whole tensor, in the order of the model's weights; all processes must call this in
    the same order.

    like: the weight that the tensor belongs to, if it is not a weight itself.
    """
    if not is_dtensor(tensor):
        return tensor
    full: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    parts = getattr(tensor if like is None else like, PARTS, None)
    processes = tensor.device_mesh.size()  # type: ignore[attr-defined]
    if parts is None:
        return full
    sizes = [size // processes for size in parts]
    shards = [torch.split(shard, sizes) for shard in full.chunk(processes)]
    ordered: list[Tensor] = []
    for number in range(len(parts)):
        ordered += [shard[number] for shard in shards]
    return torch.cat(ordered)


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this process's part of a whole tensor, sharded like another one."""
    if not is_dtensor(like):
        return tensor
    (placement,) = like.placements  # type: ignore[attr-defined]
    mesh = like.device_mesh  # type: ignore[attr-defined]
    if not placement.is_shard():
        return tensor
    processes = mesh.size()
    number = mesh.get_local_rank()
    parts = getattr(like, PARTS, None)
    if parts is not None:
        return torch.cat([part.chunk(processes)[number] for part in torch.split(tensor, parts)])
    length = tensor.shape[placement.dim]
    size = -(-length // processes)
    begin = min(length, number * size)
    return tensor.narrow(placement.dim, begin, min(length - begin, size))


def distribute_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor sharded like another one; if the shapes differ it stays whole, for the
    caller to reject.
    """
    if not is_dtensor(like) or is_dtensor(tensor) or tensor.shape != like.shape:
        return tensor
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        # not a view, which would keep the whole tensor in memory
        shard_like(tensor, like).clone().to(local_shard(like).device),
        like.device_mesh,  # type: ignore[attr-defined]
        like.placements,  # type: ignore[attr-defined]
        run_check=False,
        shape=tensor.shape,
        stride=tensor.stride(),
    )


def each_with_its_parts(tensor: Tensor, parts: Sequence[int], processes: int) -> Tensor:
    """Reorder rows so that an even split gives every process its share of each part."""
    chunks = [part.chunk(processes) for part in torch.split(tensor, list(parts))]
    ordered: list[Tensor] = []
    for process in range(processes):
        ordered += [part[process] for part in chunks]
    return torch.cat(ordered)


class Writer:
    """Writer of checkpoints during training: tensors are copied at once, and a thread writes the
    files.
    """

    def __init__(self) -> None:
        # its own group, which separates the thread's messages from those of training
        self.group = dist.new_group(backend="gloo")
        self.writing: Future[Any] | None = None
        # set once the checkpoint in progress is complete or has failed
        self.ended = threading.Event()
        self.failure: Exception | None = None

    def start(
        self, path: Path, tensors: Mapping[str, Tensor], facts: Any, done: Callable[[], None]
    ) -> None:
        """Start to write `path`, which appears once every process has written its part; the first
        process then calls `done`.
        """
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
        from torch.distributed.checkpoint.state_dict_saver import async_save

        self.wait()
        partial = path.with_name(f".{path.name}.partial")
        if rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        dist.barrier(self.group)
        storage = HuggingFaceStorageWriter(str(partial), save_distributed=True)
        writing = async_save(dict(tensors), storage_writer=storage, process_group=self.group)
        assert isinstance(writing, Future)
        self.writing = writing
        self.ended.clear()

        def end(written: "Future[Any]") -> None:
            try:
                if rank() == 0 and written.exception() is None:
                    write_json(partial / "state.json", facts)
                    complete_folder(partial, path)
                    done()
            except Exception as error:  # of another thread; `wait` raises it
                self.failure = error
            finally:
                self.ended.set()

        writing.add_done_callback(end)

    def wait(self) -> None:
        """Wait for the checkpoint in progress, and raise its error if it failed."""
        if self.writing is not None:
            from torch.distributed.checkpoint.api import CheckpointException

            writing = self.writing
            self.writing = None
            try:
                writing.result()
            except CheckpointException as error:
                reasons = "; ".join(
                    f"process {number}: {why[0]}" for number, why in error.failures.items()
                )
                raise RunError(
                    f"a checkpoint cannot be written: {reasons}", do="the one before it is kept"
                ) from error
            finally:
                self.ended.wait()  # the callback may still be running when the result is there
        if self.failure is not None:
            failure = self.failure
            self.failure = None
            raise failure


def read_shards(folder: Path, like: Callable[[str], Tensor | None]) -> dict[str, Tensor]:
    """Read a checkpoint of `Writer`, with each tensor sharded like the one that `like` returns for
    its name; each process reads only its own rows.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    try:
        for file in folder.glob("*.safetensors"):
            check_safetensors(file)
        reader = HuggingFaceStorageReader(str(folder))
        found = reader.read_metadata().state_dict_metadata
        made = {name: _room(name, entry, like(name), folder) for name, entry in found.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns about reading without a process group
            load(made, storage_reader=reader, no_dist=True)
    except PermissionError as error:
        raise unreadable(error, error.filename or folder, RunError) from None
    except (
        SafetensorError,
        OSError,
        ArithmeticError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
    ) as error:
        raise RunError(
            f"a damaged checkpoint: {error!r}", where=str(folder), do="remove it"
        ) from error
    except (RecursionError, CheckpointException) as error:
        raise RunError("a damaged checkpoint", where=str(folder), do="remove it") from error
    return made


def _room(name: str, entry: Any, like: Tensor | None, folder: Path) -> Tensor:
    """Return an empty tensor to read into, after checking that the shards contain all of its
    rows.
    """
    if like is None or tuple(entry.size) != tuple(like.shape):
        raise RunError(
            f"no fitting {name}",
            where=str(folder),
            do="the checkpoint is of another model or optimiser",
        )
    end = 0
    for chunk in sorted(entry.chunks, key=lambda chunk: tuple(chunk.offsets)):
        if not like.ndim or not chunk.sizes[0]:
            continue
        if tuple(chunk.offsets) != (end, *[0] * (like.ndim - 1)) or tuple(chunk.sizes[1:]) != tuple(
            like.shape[1:]
        ):
            raise RunError(
                f"rows of {name} are missing or twice",
                where=str(folder),
                do="remove it; a shard is lost",
            )
        end += chunk.sizes[0]
    if like.ndim and end != len(like):
        raise RunError(
            f"rows of {name} are missing", where=str(folder), do="remove it; a shard is lost"
        )
    return torch.zeros_like(like.detach())
