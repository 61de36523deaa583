"""What arrives: tensors of which this process may hold only a part.
What leaves: the part, the whole, or a checkpoint that every process writes its part of.

`fully_shard` divides every weight by rows as `torch.chunk` does: the first processes hold equal
shares, the last ones what is left, which may be nothing. Tensor parallel divides some by columns,
and of stacked matrices each. A tensor that is not divided is its own only share, so callers need
not ask.

The checkpoint is PyTorch's distributed one in its safetensors form: a shard file a process, with
the place of every tensor in the header, from which any number of processes can read. (Its usual
form keeps a pickle, which is not for us.)
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

# on a weight: the rows of what is stacked in it (queries, keys, values), each divided by itself
PARTS = "parts"


def is_dtensor(tensor: Tensor) -> bool:
    """Whether it is a DTensor, asked without the half second that importing the class takes."""
    return hasattr(tensor, "to_local")


def is_row_sharded(tensor: Tensor) -> bool:
    """Whether each process holds all of it, or rows that follow one another."""
    placements = getattr(tensor, "placements", ())
    return not hasattr(tensor, PARTS) and all(placement.is_shard(0) for placement in placements)


def local_shard(tensor: Tensor) -> Tensor:
    """The rows that this process holds; writing to them writes to the tensor."""
    return tensor.to_local() if is_dtensor(tensor) else tensor  # type: ignore[attr-defined]


def gather_full(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """All of it, in the order of the model's own weights. Every process must ask, in the same
    order.

    like: the weight that a tensor is of, where it is not one itself.
    """
    if not is_dtensor(tensor):
        return tensor
    full: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    parts = getattr(tensor if like is None else like, PARTS, None)
    processes = tensor.device_mesh.size()  # type: ignore[attr-defined]
    if parts is None:
        return full
    pieces = [
        torch.split(piece, [size // processes for size in parts]) for piece in full.chunk(processes)
    ]
    return torch.cat([piece[number] for number in range(len(parts)) for piece in pieces])


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Of a whole tensor what this process holds of one that is divided as `like`."""
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
    """A whole tensor as `like` is divided; in a shape that does not fit it stays whole, for the
    caller to refuse.
    """
    if not is_dtensor(like) or is_dtensor(tensor) or tensor.shape != like.shape:
        return tensor
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        # not a view, which would keep all of it
        shard_like(tensor, like).clone().to(local_shard(like).device),
        like.device_mesh,  # type: ignore[attr-defined]
        like.placements,  # type: ignore[attr-defined]
        run_check=False,
        shape=tensor.shape,
        stride=tensor.stride(),
    )


def each_with_its_parts(tensor: Tensor, parts: Sequence[int], processes: int) -> Tensor:
    """Rows in such an order that an even division gives every process its share of each of the
    parts.
    """
    pieces = [part.chunk(processes) for part in torch.split(tensor, list(parts))]
    return torch.cat([piece[number] for number in range(processes) for piece in pieces])


class Writer:
    """Writes checkpoints while training goes on: tensors are copied at once, the files follow in
    another thread.
    """

    def __init__(self) -> None:
        # its own, for the thread's messages to keep apart from training's
        self.group = dist.new_group(backend="gloo")
        self.writing: Future[Any] | None = None
        # set when a checkpoint that was begun is complete, or has failed
        self.ended = threading.Event()
        self.failure: Exception | None = None

    def start(
        self, path: Path, tensors: Mapping[str, Tensor], facts: Any, done: Callable[[], None]
    ) -> None:
        """Begin `path`, which appears when every process has written; then `done` is called, in the
        first process.
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
            except Exception as error:  # of another thread: `wait` raises it
                self.failure = error
            finally:
                self.ended.set()

        writing.add_done_callback(end)

    def wait(self) -> None:
        """Until what was begun is written; raises what went wrong with it."""
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
                self.ended.wait()  # a result is there before what is to be done with it
        if self.failure is not None:
            failure = self.failure
            self.failure = None
            raise failure


def read_shards(folder: Path, like: Callable[[str], Tensor | None]) -> dict[str, Tensor]:
    """What `Writer` wrote, each tensor divided as the one that `like` names for it. Each process
    reads its own rows.
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
            warnings.simplefilter("ignore")  # it takes reading without messages for a mistake
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
    """A tensor to read into, once the shards are known to make up all its rows."""
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
