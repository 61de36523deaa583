"""Distributed training: takes a model, its objective and the processes that train it together;
computes the gradients of one process.

Every process takes its share of each batch (data/loader.py). Losses are sums, so gradients and
counts are summed over the processes and divided once: a step is the same whatever the number of
processes. `ddp` replicates the model in every process (Li et al. 2020, arXiv:2006.15704). `fsdp`
shards weights, gradients and moments, and gathers a block's weights while it is computed
(Rajbhandari et al. 2020, arXiv:1910.02054; Zhao et al. 2023, arXiv:2304.11277). `tp` gives every
process some heads and columns of each block, and the same batch (tensor_parallel.py). Small values
(counts, decisions) are exchanged by gloo on the CPU, which notices at once if a process dies.
"""

import copy
import math
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from langue.errors import AlreadyReported, LangueError, RunError
from langue.model.transformer import Block
from langue.runtime import device, rank, world_size
from langue.settings.sections import TrainSettings
from langue.tasks.objective import Objective, Outcome
from langue.train.sharding import gather_full, is_dtensor, local_shard

# timeout for a process that is alive but does not answer, e.g. because it evaluates a large test
# set
PATIENCE = timedelta(hours=2)
GONE = (
    "gloo",
    "Connection closed by peer",
    "Connection reset",
    "Broken pipe",
    "NCCL",
    "recvValue",
    "sendBytes",
)


@contextmanager
def processes() -> Iterator[None]:
    """Form the process group of the processes that torchrun started; does nothing for a single
    process.

    If one process fails, all end, and only the first to fail reports its error.
    """
    if world_size() == 1 or dist.is_initialized():
        yield
        return
    place = device()
    if place.type == "cuda":
        torch.cuda.set_device(place)
    store, number, size = next(rendezvous("env://", timeout=PATIENCE))
    store = _store_of_this_start(store, number, size)
    backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "cpu:gloo"
    try:
        dist.init_process_group(
            backend, store=store, rank=number, world_size=size, timeout=PATIENCE
        )
        yield
    except Exception as error:
        raise _first_report(error, store) from error
    dist.destroy_process_group()


def _store_of_this_start(store: Any, number: int, size: int) -> Any:
    """Return the store without what an earlier start of the group has left in it.

    When torchrun restarts a group, its store stays, with the addresses of dead processes, and all
    nodes share no number that would tell one start from another. So the first process names this
    start, and another process accepts the name only if it comes together with a token that this
    process has just created, which no dead process can know.
    """
    own = uuid.uuid4().hex
    deadline = time.monotonic() + PATIENCE.total_seconds()

    def read(key: str) -> str:
        return str(store.get(key).decode()) if store.check([key]) else ""

    store.set(f"langue/hello/{number}", own)
    name = own if number == 0 else ""
    missing = set(range(1, size)) if number == 0 else {number}
    while missing and time.monotonic() < deadline:
        if number == 0:
            for other in missing:
                store.set(f"langue/welcome/{other}", f"{own} {read(f'langue/hello/{other}')}")
            missing = {other for other in missing if read(f"langue/joined/{other}") != own}
        else:
            name, _, said = read(f"langue/welcome/{number}").partition(" ")
            missing = set() if said == own else missing
        time.sleep(0.02)
    if missing:
        raise RunError(
            f"process {min(missing)} of {size} did not come",
            do="start all of them with one torchrun",
        )
    store.set(f"langue/joined/{number}", name)
    return dist.PrefixStore(name, store)  # type: ignore[attr-defined]


def _first_report(error: Exception, store: Any) -> Exception:
    """Return what this process raises for an error: the error itself if it was the first process to
    fail, otherwise an error that is not shown.
    """
    gone = not isinstance(error, LangueError) and any(word in str(error) for word in GONE)
    if gone:
        do = "the last complete checkpoint is kept: the same command with --resume goes on from it"
        error = RunError("another process of the run has ended", do=do)
    code = int(getattr(error, "exit_code", 1))
    try:
        first = int(store.add("langue/failed", 1)) == 1
        if first and rank() == 0 and not gone and device().type == "cpu":
            # This process may host the store: leave the group, and let the others look first.
            dist.destroy_process_group()
            deadline = time.monotonic() + 5
            while int(store.add("langue/failed", 0)) < world_size() and time.monotonic() < deadline:
                time.sleep(0.02)
    except RuntimeError:  # the process that hosted the store is gone
        return error
    return error if first else AlreadyReported(code)


def sums(*values: float) -> list[float]:
    """Return each value summed over all processes."""
    if world_size() == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor)
    summed: list[float] = tensor.tolist()
    return summed


def barrier() -> None:
    """Wait for all processes."""
    sums(0)


def any_rank(value: bool) -> bool:
    """Return whether the value is true in any process."""
    return sums(value)[0] > 0


def broadcast_bool(value: bool) -> bool:
    """Return the first process's value: scores may differ in their last bit, and all processes must
    take the same decision.
    """
    return sums(value and rank() == 0)[0] > 0


class Engine(nn.Module):
    """Model and objective as one module, so that the hooks of ddp and fsdp see the start and the
    end of a forward pass.
    """

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.outcome: Outcome | None = None

    def forward(self, batch: Any) -> Tensor:
        self.outcome = self.objective.forward(self.model, batch)
        return self.outcome.loss


class Parallel:
    """The model in distributed training.

    `model` is what is trained: the given model, or, with fsdp and tp, a sharded copy of it, in
    which case the given one frees its memory until `finish`.
    """

    def __init__(
        self, model: nn.Module, objective: Objective, settings: TrainSettings, place: torch.device
    ) -> None:
        several = world_size() > 1
        assert not several or dist.is_initialized(), (
            "training in several processes happens within processes()"
        )
        self.sharded = several and settings.parallel == "fsdp"
        self.spread = several and settings.parallel == "tp"
        # index of this process's part of a batch, and the number of parts
        self.share = (0, 1) if self.spread else (rank(), world_size())
        self.given = model
        self.place = place
        self.model = copy.deepcopy(model) if self.divided else model
        self.model.to(place)
        self.engine = Engine(self.model, objective)
        self.wrapped: nn.Module = self.engine
        if self.sharded:
            self._shard()
        elif self.spread:
            from langue.train.tensor_parallel import apply_tensor_parallel

            apply_tensor_parallel(self.model)
        elif several:
            self._replicate()
        if self.divided:
            for weight in self.given.parameters():
                weight.data = torch.empty(0)

    @property
    def divided(self) -> bool:
        """Whether the weights are sharded."""
        return self.sharded or self.spread

    def sums(self, *values: float) -> list[float]:
        """Return each value summed over the parts of a batch."""
        return list(values) if self.spread else sums(*values)

    def _replicate(self) -> None:
        """Wrap the model for ddp.

        find_unused_parameters: a model may have weights that an objective does not use, such as a
        decoder.
        """
        # torch warns if there is no unused parameter
        self.engine.register_parameter("unused", nn.Parameter(torch.zeros(1)))
        self.engine.to(self.place)
        with warnings.catch_warnings():
            # The first option will be renamed, but the oldest supported torch does not know the new
            # name.
            warnings.simplefilter("ignore", FutureWarning)
            self.wrapped = nn.parallel.DistributedDataParallel(
                self.engine,
                broadcast_buffers=False,
                find_unused_parameters=True,
                gradient_as_bucket_view=True,
            )

    def _shard(self) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        mesh = init_device_mesh(self.place.type, (world_size(),))
        for part in self.model.modules():
            if isinstance(part, Block):
                fully_shard(part, mesh=mesh)
        fully_shard(self.engine, mesh=mesh)
        for part in self.engine.modules():
            if isinstance(part, FSDPModule):
                # the sum; `divide_gradients` does the division
                part.set_gradient_divide_factor(1.0)
                part.set_force_sum_reduction_for_comms(True)  # gloo has no other reduction

    @contextmanager
    def micro_step(self, sync: bool) -> Iterator[None]:
        """Wrap the forward and backward pass of one batch of a step; gradients are only exchanged
        after the last batch.
        """
        if self.sharded:
            self.engine.set_requires_gradient_sync(sync)  # type: ignore[operator]
        silent = not sync and isinstance(self.wrapped, nn.parallel.DistributedDataParallel)
        with self.wrapped.no_sync() if silent else nullcontext():  # type: ignore[operator]
            yield

    def forward_backward(self, batch: Any, dtype: torch.dtype, last: bool) -> Outcome:
        """Run one batch of a step; last: the last one, after which gradients are summed over the
        processes.
        """
        with self.micro_step(sync=last):
            with torch.autocast(self.place.type, dtype, enabled=dtype != torch.float32):
                outcome = self.forward(batch)
            outcome.loss.backward()  # type: ignore[no-untyped-call]
        return outcome

    def forward(self, batch: Any) -> Outcome:
        loss = self.wrapped(batch)
        outcome = self.engine.outcome
        self.engine.outcome = None
        assert outcome is not None
        if batch.is_real:
            return replace(outcome, loss=loss)
        return replace(outcome, loss=0 * loss, count=0.0, aux_loss=None)

    def divide_gradients(self, count: float) -> None:
        """Divide the gradients by the count over all processes; ddp has already divided them by the
        number of processes.
        """
        by = count / (1 if self.divided else world_size())
        torch._foreach_div_([local_shard(gradient) for gradient in self._gradients()], by)

    def clip_gradients(self, largest: float) -> float:
        """Clip gradients like `optimizer.clip_gradients`, when some gradients are sharded and
        others are not.
        """
        gradients = self._gradients()
        whole = [gradient for gradient in gradients if not is_dtensor(gradient)]
        sharded = [gradient for gradient in gradients if is_dtensor(gradient)]
        norms = []
        for kind in (whole, sharded):  # the norm of a mixture is not defined
            if kind:
                norm_of_kind = torch.nn.utils.get_total_norm(kind)
                norms.append(float(gather_full(norm_of_kind)))
        norm = math.hypot(*norms)
        if largest and norm > largest:
            local = [local_shard(gradient) for gradient in gradients]
            torch._foreach_mul_(local, largest / (norm + 1e-6))
        return norm

    def _gradients(self) -> list[Tensor]:
        return [w.grad for w in self.model.parameters() if w.grad is not None]

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Gather the weights outside of the blocks, for forward passes that do not start at the
        engine, such as those of an evaluation.

        Every process evaluates everything, because metrics are not sums (a correlation, an F1),
        predictions would have to be exchanged, and held-out data is small compared to training
        data.
        """
        if self.sharded:
            self.engine.unshard()  # type: ignore[operator]
        try:
            yield
        finally:
            if self.sharded:
                self.engine.reshard()  # type: ignore[operator]

    @torch.no_grad()
    def finish(self) -> nn.Module:
        """Return the given model, with all of the trained weights."""
        if self.divided:
            for ours, given in zip(self.model.parameters(), self.given.parameters(), strict=True):
                given.data = gather_full(ours.detach(), ours)
            self.given.to(self.place)
        return self.given
