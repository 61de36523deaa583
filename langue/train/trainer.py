"""The training loop: takes a model, a task, encoded examples and settings; trains the weights, and
logs how.

A step (`Trainer._step`) runs its batches forward and backward, divides the gradients by the count
of the losses, clips, and updates. With several processes, each runs this loop on its share of every
batch, and train/parallel.py exchanges gradients and sums.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.markup import escape
from torch import nn

from langue.data.loader import BatchSource, Loader
from langue.errors import DataError, Interrupted, RunError
from langue.files import exclusive_lock
from langue.model.config import ModelConfig
from langue.model.language_model import compile_parts
from langue.model.transformer import set_activation_checkpointing
from langue.runtime import (
    TRAINING_KERNELS,
    HeapTrimmer,
    device,
    keep_freed_memory,
    keep_kernels,
    precision,
    rank,
    world_size,
)
from langue.settings.sections import TrainSettings
from langue.tasks.objective import Objective, Outcome
from langue.train.journal import Journal
from langue.train.optimizer import EMA, clip_gradients, learning_rate, make_optimizer
from langue.train.parallel import Parallel, any_rank, barrier, broadcast_bool
from langue.train.sharding import Writer
from langue.train.state import (
    keep_batches,
    latest,
    load_state,
    load_weights,
    save_best,
    save_state,
)

if TYPE_CHECKING:
    from langue.train.throughput import MFUMeter

PATIENCE = 20  # maximum number of consecutive skipped steps
WINDOW = 100  # number of losses that a spike is compared with
FEWEST = 20  # number of losses below which none counts as a spike

Watch = Callable[[Mapping[str, Any], float], None]


@dataclass
class Progress:
    """The part of a checkpoint that is neither weights nor optimizer state."""

    step: int = 0
    examples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    log_bytes: int = 0
    best: float | None = None
    best_loss: float = 0.0
    best_step: int = 0
    stale: int = 0  # evaluations since the best one
    stopped: bool = False  # by early stopping
    skipped: int = 0  # consecutive skipped steps
    # recent losses, with which a spike is compared
    recent: list[float] = field(default_factory=list)


def _progress(path: Path, kept: dict[str, Any]) -> Progress:
    """Restore the progress of a checkpoint; raise RunError if it is incomplete."""
    try:
        if missing := {each.name for each in fields(Progress)} - set(kept):
            raise TypeError(f"no {sorted(missing)[0]}")
        return Progress(**kept)
    except TypeError as error:
        where = str(path / "state.json")
        raise RunError(
            f"not the state of a run: {error}",
            where=where,
            do="resume it with the version of langue that wrote it",
        ) from None


class Trainer:
    """The training loop.

    train: source of batches. dev: input of `objective.evaluate`; None: nothing is held out. peak:
    FLOP/s of the device, to report the utilization of a language model. sample: returns (prompt,
    output) pairs of the model, shown and logged at each evaluation. look_first: also evaluate the
    model before the first step. watch: called after each evaluation on dev with its log line and
    its score by the selection metric, higher is better; an exception from it ends the training.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        train: BatchSource,
        dev: Any,
        settings: TrainSettings,
        folder: Path,
        *,
        peak: float | None = None,
        sample: Callable[[nn.Module], list[tuple[str, str]]] | None = None,
        look_first: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.objective = objective
        self.dev = dev
        self.settings = settings
        self.folder = folder
        self.device = device()
        self.dtype = precision(settings.precision)
        self.heap = None
        if self.device.type == "cpu":
            self.heap = HeapTrimmer() if keep_freed_memory() else None
            keep_kernels(TRAINING_KERNELS)
        set_activation_checkpointing(model, settings.activation_checkpointing)
        # distributed training; None: a single process
        self.parallel: Parallel | None = None
        self.share = (0, 1)  # index of this process's part of a batch, and the number of parts
        if world_size() == 1:
            self.model = model.to(self.device)
        else:
            self.parallel = Parallel(model, objective, settings, self.device)
            self.share = self.parallel.share
            self.model = self.parallel.model
        if settings.compile:
            compile_parts(self.model)
        self.loader = Loader(train, settings.accumulate, self.share)
        self.total = self.loader.total(settings.epochs, settings.max_steps)
        pass_steps = len(self.loader.steps(0))
        self.evaluate_every = settings.evaluate_every or max(
            1, math.ceil(min(pass_steps, self.total) / 4)
        )
        self.checkpoint_every = settings.checkpoint_every or min(
            pass_steps, max(1, math.ceil(self.total / 4))
        )
        config: ModelConfig = model.body.config  # type: ignore[union-attr, assignment]
        self.optimizer = make_optimizer(
            self.model, settings, max(config.n_layers, config.decoder_layers)
        )
        divided = self.parallel is not None and self.parallel.divided
        self.average = EMA(self.model, settings.ema, divided)
        sharded = self.parallel is not None and self.parallel.sharded
        self.writer = Writer() if sharded else None
        # number of processes that work on the same part of a batch
        many = world_size() // self.share[1]
        self.mfu_meter = None if peak is None else _mfu_meter(config, many * peak)
        self.sample = None if divided else sample
        self.look_first = look_first
        self.watch = watch
        self.progress = Progress()
        self.interrupted = False

    def run(self, resume: bool = False) -> Progress:
        """Train to the end, from the start or from the newest checkpoint; the model then has the
        best weights.
        """
        self.model.train()
        newest = latest(self.folder / "checkpoints") if resume else None
        if newest is not None:
            self._load(newest)
        at = self.progress
        at.stopped = at.stopped and self._is_patience_over()  # patience may have been raised
        began = time.perf_counter() - at.seconds
        lock = exclusive_lock(self.folder / "checkpoints") if rank() == 0 else nullcontext()
        log = self.folder / "log.jsonl"
        tracker = self.settings.tracker
        with (
            lock,
            Journal(log, self.total, at.step, at.log_bytes, tracker) as journal,
            self._signals(),
        ):
            batches = self.loader.iterate(at.step, self.total, self.device)
            if self.look_first and not at.step and self.dev is not None:
                self._evaluate_initial_model(journal)
            while at.step < self.total and not at.stopped:
                epoch, step_batches = next(batches)
                line = self._step(step_batches)
                if self.heap is not None:
                    self.heap.maybe_trim()
                before = at.seconds
                at.seconds = time.perf_counter() - began
                if self.mfu_meter is not None:
                    line["mfu"] = self._utilisation(step_batches, at.seconds - before)
                if at.step % self.settings.log_every == 0 or at.step == self.total:
                    journal.write(
                        {"split": "train", "epoch": round(epoch, 4), **self._counts(), **line}
                    )
                journal.show(at.step, line["loss"], at.tokens / at.seconds, line.get("mfu"))
                if self.dev is not None and (
                    at.step % self.evaluate_every == 0 or at.step == self.total
                ):
                    self._evaluate(journal, epoch)
                at.seconds = time.perf_counter() - began
                interrupted = any_rank(self.interrupted)
                if (
                    at.step % self.checkpoint_every == 0
                    or at.step == self.total
                    or at.stopped
                    or interrupted
                ):
                    self._save(journal)
                if interrupted:
                    self._wait_for_writes()
                    raise Interrupted(
                        f"stopped at step {at.step} of {self.total}, everything saved",
                        where=str(self.folder),
                        do="the same command with --resume goes on from here",
                    )
        self._wait_for_writes()
        if at.best is not None:
            load_weights(self.folder / "checkpoints" / f"best-{at.best_step:08d}", self.model)
        else:
            self.average.copy_to(self.model)
        if self.parallel is not None:
            self.model = self.parallel.finish()
        self.model.eval()
        return at

    def _load(self, newest: Path) -> None:
        """Restore a checkpoint; raise RunError if it is beyond the last step."""
        kept = load_state(newest, self.model, self.optimizer, self.average.weights)
        self.progress = _progress(newest, kept)
        if self.progress.step > self.total:
            raise RunError(
                f"the run has made {self.progress.step:,} steps, and {self.total:,} are asked for",
                where=str(self.folder),
                do="ask for as many, or for more",
            )

    def _utilisation(self, batches: list[Any], seconds: float) -> float:
        """Return the fraction of the peak that a step reached."""
        assert self.mfu_meter is not None
        for batch in batches:
            self.mfu_meter.add(batch, batch.n_predicted)
        return self.mfu_meter.share(seconds)

    def _step(self, batches: list[Any]) -> dict[str, Any]:
        """Run one optimizer step over its batches.

        Returns its loss, learning rate, gradient norm and metric. Raises DataError if no token or
        row carries loss.
        """
        at = self.progress
        settings = self.settings
        several = self.parallel  # None: a single process
        torch.manual_seed(step_seed(settings.seed, at.step, self.share[0]))
        rate = learning_rate(at.step, self.total, settings)
        self.optimizer.set_rate(rate)

        # Forward and backward: gradients accumulate over the batches. The loss of a single batch is
        # divided by its count at once; otherwise the count of all batches must be known first.
        outcomes: list[Outcome] = []
        for batch in batches:
            if several is not None:
                outcomes.append(several.forward_backward(batch, self.dtype, batch is batches[-1]))
                continue
            with autocast(self.device, self.dtype):
                outcome = self.objective.forward(self.model, batch)
            loss = outcome.loss
            if len(batches) == 1 and outcome.count:
                loss = loss / outcome.count
            loss.backward()  # type: ignore[no-untyped-call]
            outcomes.append(outcome)

        # Sums over the batches, and over the processes.
        loss_sum, aux_loss = sum_losses(outcomes)
        count = 0.0
        examples = 0.0
        tokens = 0.0
        for batch, outcome in zip(batches, outcomes, strict=True):
            count += outcome.count
            if batch.is_real:
                examples += len(batch)
                tokens += batch.n_tokens
        if several is not None:
            loss_sum, count, aux_loss, examples, tokens = several.sums(
                loss_sum, count, aux_loss, examples, tokens
            )
        at.examples += int(examples)
        at.tokens += int(tokens)
        if not count:
            raise DataError(
                f"nothing in the batch of step {at.step + 1} carries loss",
                do="look at `langue data preview`",
            )
        mean_loss = loss_sum / count

        # Divide, clip and update.
        if several is not None:
            several.divide_gradients(count)
            norm = several.clip_gradients(settings.clip)
        else:
            gradients = [w.grad for w in self.model.parameters() if w.grad is not None]
            if len(batches) > 1:
                torch._foreach_div_(gradients, count)
            norm = clip_gradients(gradients, settings.clip)
        skipped = self._should_skip(mean_loss, norm, batches)
        if not skipped:
            self.optimizer.step()
            self.average.update(self.model)
            at.recent = [*at.recent[1 - WINDOW :], mean_loss]
        self.optimizer.zero_grad()
        at.step += 1

        name = self.objective.primary_metric
        metric = self.objective.train_metric(outcomes, (loss_sum - aux_loss) / count)
        line: dict[str, Any] = {"loss": mean_loss, "lr": rate, "grad_norm": norm, name: metric}
        line |= self._positive([name]) | self.objective.logged(outcomes)
        if skipped:
            line["skipped"] = True
        return line

    def _should_skip(self, loss: float, norm: float, batches: list[Any]) -> bool:
        """Return whether to skip the step; raise RunError if steps must not be skipped. The batches
        are saved to a file.
        """
        at = self.progress
        settings = self.settings
        found = check_loss(loss, at.recent, settings.spike)
        if found is None and not math.isfinite(norm):
            found = f"is {loss:.4g}, but its gradient is not finite"
        if found is None:
            at.skipped = 0
            return False
        kept = keep_batches(self.folder, at.step + 1, batches)
        at.skipped += 1
        if at.skipped > PATIENCE:
            raise RunError(
                f"{at.skipped} steps in a row had no loss to go by, the last at step {at.step + 1}"
                f" {found}",
                where=str(self.folder),
                do=(
                    "the weights contain NaN or Inf: restart with a lower train.lr (now"
                    f" {settings.lr:g})"
                ),
            )
        if settings.on_nonfinite == "stop":
            raise RunError(
                f"the loss at step {at.step + 1} {found}; its batch is kept in {kept.name}",
                where=str(self.folder),
                do=(
                    "go on without it: --resume train.on_nonfinite=skip; or restart with a"
                    f" lower train.lr (now {settings.lr:g}) or train.precision=fp32"
                ),
            )
        return True

    def _evaluate_initial_model(self, journal: Journal) -> None:
        """Evaluate the model before its first step."""
        with self._whole_model():
            metrics, loss = self.objective.evaluate(
                self.model, self.dev, device=self.device, dtype=self.dtype
            )
        journal.write({"split": "dev", "epoch": 0.0, **self._counts(), "loss": loss, **metrics})
        journal.say(f"before training: dev loss {loss:.4f}")

    def _evaluate(self, journal: Journal, epoch: float) -> None:
        at = self.progress
        watched = self.objective.primary_metric
        with self.average.applied(self.model), self._whole_model():
            metrics, loss = self.objective.evaluate(
                self.model, self.dev, device=self.device, dtype=self.dtype
            )
            if loss is not None and not math.isfinite(loss):
                raise RunError(
                    f"the dev loss at step {at.step} is {loss}",
                    where=str(self.folder),
                    do=(
                        "the weights contain NaN or Inf: restart with a lower train.lr (now"
                        f" {self.settings.lr:g})"
                    ),
                )
            written = self._samples()
            line = {
                "split": "dev",
                "epoch": round(epoch, 4),
                **self._counts(),
                "loss": loss,
                **metrics,
            }
            journal.write(
                line | self._positive(metrics) | ({"samples": written} if written else {})
            )
            score = self.objective.score(metrics, loss)
            better = broadcast_bool(
                at.best is None or loss is not None and (score, -loss) > (at.best, -at.best_loss)
            )
            value = metrics[watched]
            shown = "undefined" if value is None else f"{value:.4f}"
            mark = " [green]best[/]" if better else ""
            label = self.objective.label_of(watched)
            of_label = f" of {escape(label)}" if label is not None else ""
            journal.say(f"step {at.step}: dev loss {loss:.4f}, {watched}{of_label} {shown}{mark}")
            journal.quote(written)
            if better:
                at.best = score
                at.best_loss = loss or 0.0
                at.best_step = at.step
                at.stale = 0
                if self.writer is not None:  # the newest checkpoint must be known
                    self.writer.wait()
                save_best(
                    self.folder / "checkpoints", self.model, at.step, {"loss": loss, **metrics}
                )
        if self.watch is not None:
            self.watch(line, score)
        if better:
            return
        at.stale += 1
        at.stopped = self._is_patience_over()
        if at.stopped:
            journal.say(
                f"stopped at step {at.step} of {self.total}: none better than step {at.best_step}"
                " since"
            )

    def _positive(self, names: Iterable[str]) -> dict[str, str]:
        """Return the label that some of these metrics refer to, if there is one."""
        labels = [label for name in names if (label := self.objective.label_of(name)) is not None]
        return {"positive": labels[0]} if labels else {}

    def _samples(self) -> list[tuple[str, str]]:
        if self.sample is None or rank() > 0:
            return []
        self.model.eval()
        written = self.sample(self.model)
        self.model.train()
        return written

    def _save(self, journal: Journal) -> None:
        self.progress.log_bytes = journal.size
        folder = self.folder / "checkpoints"
        progress = asdict(self.progress)
        save_state(folder, self.model, self.optimizer, progress, self.average.weights, self.writer)

    def _is_patience_over(self) -> bool:
        return bool(self.settings.patience) and self.progress.stale >= self.settings.patience

    def _wait_for_writes(self) -> None:
        """Wait until other threads and processes have written everything to disk."""
        if self.writer is not None:
            self.writer.wait()
        barrier()

    def _counts(self) -> dict[str, Any]:
        at = self.progress
        return {
            "step": at.step,
            "examples": at.examples,
            "tokens": at.tokens,
            "seconds": round(at.seconds, 3),
        }

    def _whole_model(self) -> AbstractContextManager[None]:
        """Gather whatever is sharded and needed by an evaluation."""
        return nullcontext() if self.parallel is None else self.parallel.gathered()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Finish the step and save on Ctrl-C or SIGTERM; stop at once on a second Ctrl-C."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(_: int, __: FrameType | None) -> None:
            self.interrupted = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _mfu_meter(config: ModelConfig, peak: float) -> "MFUMeter":
    from langue.train.throughput import MFUMeter

    return MFUMeter(config, peak)


def step_seed(seed: int, step: int, share: int) -> int:
    """Return the seed for the random numbers of one training step, so that a resumed run draws the
    same ones.

    share: which part of the batch it is.
    """
    return ((seed * 1_000_003 + step) * 65_537 + share) % 2**63


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return an autocast context for matrix products in `dtype`; disabled for fp32."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def sum_losses(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Return the summed losses of batches, and their auxiliary part.

    All are transferred at once, after the last batch, because every transfer waits for the
    accelerator, which then idles.
    """
    losses = [outcome.loss.detach() for outcome in outcomes]
    aux_losses = [outcome.aux_loss for outcome in outcomes if outcome.aux_loss is not None]
    numbers = torch.stack(losses + aux_losses).tolist()
    return sum(numbers[: len(losses)]), sum(numbers[len(losses) :])


def check_loss(loss: float, recent: Sequence[float], spike: float) -> str | None:
    """Return what is wrong with a loss after the `recent` ones, in words, or None."""
    if not math.isfinite(loss):
        return f"is {loss}"
    if spike and len(recent) >= FEWEST:
        mean = float(np.mean(recent))
        deviation = float(np.std(recent))
        if loss > mean + spike * max(deviation, 1e-3 * abs(mean)):
            return f"is {loss:.4g}, a spike over {mean:.4g} ± {deviation:.2g} before"
    return None
