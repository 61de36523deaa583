"""What arrives: a model, a task, encoded examples and settings. What leaves: trained weights and
the story of how.

The one training loop. A step is: draw its batches, sum the losses, divide by their counts, clip,
update. Where several processes train together each runs this loop on its share of every batch, and
parallel.py adds up what they have found.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.markup import escape
from torch import nn

from langue.data.loader import BatchSource, Loader
from langue.errors import DataError, Interrupted, RunError
from langue.files import exclusive_lock
from langue.model.config import ModelConfig
from langue.model.language_model import compile_parts
from langue.model.transformer import set_recompute
from langue.runtime import (
    HeapTrimmer,
    device,
    keep_freed_memory,
    keep_kernels,
    precision,
    rank,
    seed_step,
    world_size,
)
from langue.settings.sections import TrainSettings
from langue.tasks.objective import Objective, Outcome, summed
from langue.train.ema import EMA
from langue.train.journal import Journal
from langue.train.loss_guard import WINDOW, check_loss, keep_batches
from langue.train.optimizer import clip_gradients, make_optimizer
from langue.train.parallel import Parallel, any_rank, barrier, broadcast_bool
from langue.train.schedule import factor
from langue.train.sharding import Writer
from langue.train.state import latest, load_state, load_weights, save_best, save_state
from langue.train.throughput import MFUMeter

PATIENCE = 20  # steps in a row that may be left out


@dataclass
class Progress:
    """What a checkpoint keeps beside weights and moments."""

    step: int = 0
    examples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    log_bytes: int = 0
    best: float | None = None
    best_loss: float = 0.0
    best_step: int = 0
    stale: int = 0  # evaluations since the best one
    stopped: bool = False  # by patience
    skipped: int = 0  # steps in a row that were left out
    # the last losses, which a spike is measured against
    recent: list[float] = field(default_factory=list)


def _progress(path: Path, kept: dict[str, Any]) -> Progress:
    """RunError where a checkpoint does not say all of it."""
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
    """train: where batches come from. dev: what `objective.evaluate` takes; None: nothing is held
    out. peak: FLOP/s of the device, where the share of it that a language model uses is to be told.
    sample: what the model makes of some prompts, as pairs, shown and kept at each evaluation.
    look_first: also judge the model before its first step."""

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
            keep_kernels(training=True)
        set_recompute(model, settings.activation_checkpointing)
        self.parallel = Parallel(model, objective, settings, self.device)
        self.model = self.parallel.model
        if settings.compile:
            compile_parts(self.model)
        self.loader = Loader(train, settings.accumulate, self.parallel.share)
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
        self.average = EMA(self.model, settings.ema)
        self.writer = Writer() if self.parallel.sharded else None
        many = world_size() // self.parallel.share[1]  # that work at one part of a batch
        self.mfu_meter = None if peak is None else MFUMeter(config, many * peak)
        self.sample = None if self.parallel.divided else sample
        self.look_first = look_first
        self.progress = Progress()
        self.interrupted = False

    def run(self, resume: bool = False) -> Progress:
        """Train to the end, or from the newest checkpoint to the end; the model then holds the best
        weights."""
        self.model.train()
        newest = latest(self.folder / "checkpoints") if resume else None
        if newest is not None:
            self.progress = _progress(
                newest, load_state(newest, self.model, self.optimizer, self.average.weights)
            )
        at = self.progress
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
                self._look(journal)
            while at.step < self.total and not at.stopped:
                epoch, step_batches = next(batches)
                line = self._step(step_batches)
                if self.heap is not None:
                    self.heap.maybe_trim()
                before = at.seconds
                at.seconds = time.perf_counter() - began
                if self.mfu_meter is not None:
                    line["mfu"] = self.mfu_meter.share(at.seconds - before)
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
                    self._settle()
                    raise Interrupted(
                        f"stopped at step {at.step} of {self.total}, everything saved",
                        where=str(self.folder),
                        do="the same command with --resume goes on from here",
                    )
        self._settle()
        if at.best is not None:
            load_weights(self.folder / "checkpoints" / f"best-{at.best_step:08d}", self.model)
        else:
            self.average.copy_to(self.model)
        self.parallel.finish().eval()
        return at

    def _step(self, batches: list[Any]) -> dict[str, Any]:
        """One optimiser step over the batches that make it up; returns its loss, rate, gradient
        norm and metric."""
        at = self.progress
        settings = self.settings
        seed_step(settings.seed, at.step, self.parallel.share[0])
        rate = settings.lr * factor(at.step, self.total, settings)
        self.optimizer.set_rate(rate)
        count = 0.0
        examples = 0
        tokens = 0
        outcomes: list[Outcome] = []
        for index, batch in enumerate(batches):
            with self.parallel.micro_step(sync=index == len(batches) - 1):
                with torch.autocast(
                    self.device.type, self.dtype, enabled=self.dtype != torch.float32
                ):
                    outcome = self.parallel.forward(batch)
                # What one process finds in one batch is divided at once; else all counts must be
                # known first.
                single_batch = len(batches) == world_size() == 1 and outcome.count
                (outcome.loss / outcome.count if single_batch else outcome.loss).backward()  # type: ignore[no-untyped-call]
            count += outcome.count
            if batch.is_real:
                examples = examples + len(batch)
                tokens = tokens + batch.n_tokens
            if self.mfu_meter is not None:
                self.mfu_meter.add(batch, outcome.count)
            outcomes.append(outcome)
        total, aux_loss = summed(outcomes)
        total, count, aux_loss, new_examples, new_tokens = self.parallel.sums(
            total, count, aux_loss, examples, tokens
        )
        at.examples, at.tokens = at.examples + int(new_examples), at.tokens + int(new_tokens)
        if not count:
            raise DataError(
                f"nothing in the batch of step {at.step + 1} carries loss",
                do="look at `langue data preview`",
            )
        if len(batches) > 1 or world_size() > 1:
            self.parallel.scale(count)
        loss = total / count
        norm = clip_gradients(self.model, settings.clip)
        skipped = self._unfit(loss, norm, batches)
        if not skipped:
            self.optimizer.step()
            self.average.update(self.model)
            at.recent = [*at.recent[1 - WINDOW :], loss]
        self.optimizer.zero_grad()
        at.step += 1
        line = {
            "loss": loss,
            "lr": rate,
            "grad_norm": norm,
            self.objective.primary_metric: self.objective.train_metric(
                outcomes, (total - aux_loss) / count
            ),
        }
        return (
            line
            | self._positive([self.objective.primary_metric])
            | ({"skipped": True} if skipped else {})
        )

    def _unfit(self, loss: float, norm: float, batches: list[Any]) -> bool:
        """Whether the step is to be left out; RunError where that is not wished. Its batches are
        kept in a file."""
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

    def _look(self, journal: Journal) -> None:
        """Judge the model as it is before its first step."""
        with self.parallel.gathered():
            metrics, loss = self.objective.evaluate(
                self.model, self.dev, device=self.device, dtype=self.dtype
            )
        journal.write({"split": "dev", "epoch": 0.0, **self._counts(), "loss": loss, **metrics})
        journal.say(f"before training: dev loss {loss:.4f}")

    def _evaluate(self, journal: Journal, epoch: float) -> None:
        at = self.progress
        watched = self.objective.primary_metric
        with self.average.applied(self.model), self.parallel.gathered():
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
                if self.writer is not None:  # which checkpoint is the newest must be settled
                    self.writer.wait()
                save_best(
                    self.folder / "checkpoints", self.model, at.step, {"loss": loss, **metrics}
                )
                return
        at.stale += 1
        at.stopped = bool(self.settings.patience) and at.stale >= self.settings.patience
        if at.stopped:
            journal.say(
                f"stopped at step {at.step} of {self.total}: none better than step {at.best_step}"
                " since"
            )

    def _positive(self, names: Iterable[str]) -> dict[str, str]:
        """Which label some of these metrics are of, where there are such."""
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

    def _settle(self) -> None:
        """Until what other threads and processes write is on disk."""
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

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM finish the step and save; a second Ctrl-C stops at once."""
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
