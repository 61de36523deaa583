"""What arrives: a model, a task, encoded examples and settings. What leaves: trained weights and the story of how.

The one training loop. A step is: draw its batches, sum the losses, divide by their counts, clip, update.
"""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from langue.data.batch import Batch, Examples
from langue.data.loader import Loader
from langue.errors import DataError, Interrupted, RunError
from langue.runtime import device, precision, seed_step
from langue.settings import TrainSettings
from langue.tasks.apply import apply
from langue.tasks.task import Task, TaskModel
from langue.train.journal import Journal
from langue.train.optimizer import clip_gradients, make_optimizer, set_rate
from langue.train.schedule import factor
from langue.train.state import latest, load_state, load_weights, save_best, save_state


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
    history: list[float] = field(default_factory=list)  # the main metric at each evaluation


class Trainer:
    def __init__(
        self, model: TaskModel, task: Task, train: Examples, dev: Examples | None, settings: TrainSettings, folder: Path
    ) -> None:
        self.model, self.task, self.dev, self.settings, self.folder = model, task, dev, settings, folder
        self.device, self.dtype = device(), precision(settings.precision)
        self.loader = Loader(
            train,
            batch_tokens=settings.batch_tokens,
            batch_examples=settings.batch_examples,
            accumulate=settings.accumulate,
            seed=settings.seed,
        )
        self.total = self.loader.total(settings.epochs)
        if settings.max_steps:
            self.total = min(self.total, settings.max_steps)
        pass_steps = len(self.loader.steps(0))
        self.evaluate_every = settings.evaluate_every or max(1, math.ceil(pass_steps / 4))
        self.checkpoint_every = settings.checkpoint_every or pass_steps
        self.optimizer = make_optimizer(model, settings, model.body.config.n_layers)
        self.progress = Progress()
        self.interrupted = False

    def run(self, resume: bool = False) -> Progress:
        """Train to the end, or from the newest checkpoint to the end; the model then holds the best weights."""
        self.model.to(self.device).train()
        newest = latest(self.folder / "checkpoints") if resume else None
        if newest is not None:
            self.progress = Progress(**_without_format(load_state(newest, self.model, self.optimizer)))
        at = self.progress
        began = time.perf_counter() - at.seconds
        with Journal(self.folder / "log.jsonl", self.total, at.step, at.log_bytes) as journal, self._signals():
            batches = self.loader.iterate(at.step, self.device)
            while at.step < self.total and not at.stopped:
                epoch, step_batches = next(batches)
                line = self._step(step_batches)
                at.seconds = time.perf_counter() - began
                if at.step % self.settings.log_every == 0 or at.step == self.total:
                    journal.write({"split": "train", "epoch": round(epoch, 4), **self._counts(), **line})
                journal.show(at.step, line["loss"], at.tokens / at.seconds)
                if self.dev is not None and (at.step % self.evaluate_every == 0 or at.step == self.total):
                    self._evaluate(journal, epoch)
                at.seconds = time.perf_counter() - began
                if at.step % self.checkpoint_every == 0 or at.step == self.total or at.stopped or self.interrupted:
                    self._save(journal)
                if self.interrupted:
                    raise Interrupted(
                        f"stopped at step {at.step} of {self.total}, everything saved",
                        where=str(self.folder),
                        do="the same command with --resume goes on from here",
                    )
        if at.best is not None:
            load_weights(self.folder / "checkpoints" / f"best-{at.best_step:08d}", self.model)
        self.model.eval()
        return at

    def _step(self, batches: list[Batch]) -> dict[str, Any]:
        """One optimiser step over the batches that make it up; returns its loss, rate, gradient norm and metric."""
        at, settings = self.progress, self.settings
        seed_step(settings.seed, at.step)
        rate = settings.lr * factor(at.step, self.total, settings.schedule, settings.warmup)
        set_rate(self.optimizer, rate)
        total, count = 0.0, 0.0
        answers: list[tuple[Any, Any]] = []
        for batch in batches:
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                outputs = self.model(batch)
            assert batch.targets is not None
            loss, number = self.task.loss(outputs, batch.targets)
            # A lone batch is divided at once; several are summed and divided when all counts are known.
            (loss / number if len(batches) == 1 and number else loss).backward()  # type: ignore[no-untyped-call]
            total, count = total + float(loss.detach()), count + number
            answers.append((batch.targets.cpu().numpy(), self.task.predict(outputs.detach())))
            at.examples += len(batch)
            at.tokens += batch.n_tokens
        if not count:
            raise DataError(
                f"nothing in the batch of step {at.step + 1} carries loss", do="look at `langue data preview`"
            )
        if not math.isfinite(total):
            raise RunError(
                f"the loss at step {at.step + 1} is {total}",
                where=str(self.folder),
                do=f"lower train.lr (now {settings.lr:g}) or set train.precision=fp32",
            )
        if len(batches) > 1:
            torch._foreach_div_([w.grad for w in self.model.parameters() if w.grad is not None], count)
        norm = clip_gradients(self.model, settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        at.step += 1
        metrics = self.task.metrics(*(np.concatenate(part) for part in zip(*answers, strict=True)))
        main = self.task.main_metric
        return {"loss": total / count, "lr": rate, "grad_norm": norm, main: metrics[main]}

    def _evaluate(self, journal: Journal, epoch: float) -> None:
        assert self.dev is not None and self.dev.targets is not None
        at = self.progress
        predictions, loss = apply(self.model, self.task, self.dev, device=self.device, dtype=self.dtype)
        metrics = self.task.metrics(self.dev.targets, predictions)
        journal.write({"split": "dev", "epoch": round(epoch, 4), **self._counts(), "loss": loss, **metrics})
        # An undefined metric (a constant prediction has no correlation) is worse than any defined one.
        score = -1.0 if metrics[self.task.main_metric] is None else float(metrics[self.task.main_metric] or 0.0)
        at.history.append(score)
        better = at.best is None or loss is not None and (score, -loss) > (at.best, -at.best_loss)
        mark = " [green]best[/]" if better else ""
        journal.say(f"step {at.step}: dev loss {loss:.4f}, {self.task.main_metric} {score:.4f}{mark}")
        if better:
            at.best, at.best_loss, at.best_step, at.stale = score, loss or 0.0, at.step, 0
            save_best(self.folder / "checkpoints", self.model, at.step, {"loss": loss, **metrics})
        else:
            at.stale += 1
            at.stopped = bool(self.settings.patience) and at.stale >= self.settings.patience

    def _save(self, journal: Journal) -> None:
        self.progress.log_bytes = journal.size
        save_state(self.folder / "checkpoints", self.model, self.optimizer, asdict(self.progress))

    def _counts(self) -> dict[str, Any]:
        at = self.progress
        return {"step": at.step, "examples": at.examples, "tokens": at.tokens, "seconds": round(at.seconds, 3)}

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


def _without_format(progress: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in progress.items() if key != "format"}
