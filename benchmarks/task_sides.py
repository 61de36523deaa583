"""Shared parts of the benchmarks of fine-tuning tasks: data, langue's side, the options of
transformers' Trainer, and two processes that run in turn for some seconds each.

One process is stopped while the other runs, so that other load on the machine affects both equally.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.finetune_peers import step_clock

TURN = 20.0  # seconds of each turn
DEFAULT_STEPS = 24  # steps that are timed separately for the Trainer with random batches
SKIP = 4


def rows(job: dict[str, Any], split: str) -> list[dict[str, Any]]:
    """Return the rows of a split that `write_rows` wrote for both sides."""
    lines = Path(job["data"], f"{split}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def draw(table: Any, most: int) -> Any:
    """Return at most this many random rows of a table; random, since files may be sorted by
    label.
    """
    if len(table) <= most:
        return table
    drawn = np.random.default_rng(1).permutation(len(table))[:most]
    return table.select(np.sort(drawn))


def write_rows(folder: Path, split: str, table: Any, columns: Sequence[str]) -> str:
    """Write columns of a table as JSON lines, and return the split's name and size."""
    values = zip(*(table.column(name) for name in columns), strict=True)
    lines = [json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in values]
    (folder / f"{split}.jsonl").write_text("".join(lines), "utf-8")
    return f"{split} {len(lines):,}"


def without_lengths(answers: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the answers of all sides without the lengths of their texts, which are long lists."""
    kept = {}
    for side, answer in answers.items():
        kept[side] = {name: value for name, value in answer.items() if name != "lengths"}
    return kept


def predictions(prepared: Any, network: Any) -> Any:
    """Return the predictions of a trained network for the test split."""
    from langue.runtime import device, precision

    kind = precision(prepared.settings.train.precision)
    found, _ = prepared.task.apply(network, prepared.encoded["test"], device=device(), dtype=kind)
    return found


def train_langue(
    task: str,
    job: dict[str, Any],
    shared: dict[str, Any],
    judge: Callable[[Any, Any], Any] = predictions,
) -> dict[str, Any]:
    """Train with langue's Trainer on what `langue finetune` prepares, and return timings and the
    result of `judge`.

    shared: lr, warmup, weight_decay, batch and max_length, the same for both sides.
    """
    from langue.runs.arguments import FINETUNE, resolve_call
    from langue.runs.execute import rows_in_use
    from langue.runs.prepare import Finetuning, build, prepare
    from langue.train.trainer import Trainer

    chosen = {
        "train.lr": shared["lr"],
        "train.warmup": shared["warmup"],
        "train.weight_decay": shared["weight_decay"],
        "train.batch_examples": shared["batch"],
        "train.epochs": job["epochs"],
        "train.checkpoint_every": 10**6,
        "data.max_length": shared["max_length"],
        "data.duplicates": False,
    }
    given = {"task": task, "model": job["model"], "data": job["data"]}
    prepared = prepare(resolve_call(FINETUNE, {}, given, chosen | job["settings"]))
    assert isinstance(prepared, Finetuning)
    network: Any = build(prepared)
    settings = prepared.settings
    batches = prepared.task.batches(prepared.train, settings)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(network, prepared.task, batches, None, settings.train, Path(folder))
        began = time.process_time()
        with rows_in_use(prepared, network):
            trainer.run()
        seconds = time.process_time() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    judged = judge(prepared, network)
    return {
        "seconds": seconds,
        "judging": time.process_time() - began,
        "memory": memory,
        "lengths": prepared.train.lengths.tolist(),
        "steps": trainer.progress.step,
        "tokens": trainer.progress.tokens,
        "predictions": judged,
    }


def training_options(folder: str, job: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """Return the options of transformers' Trainer, and of trainers based on it, for the same
    training.
    """
    return {
        "output_dir": folder,
        "per_device_train_batch_size": shared["batch"],
        "learning_rate": shared["lr"],
        "warmup_steps": shared["warmup"],  # below 1: a fraction of all steps
        "weight_decay": shared["weight_decay"],
        "num_train_epochs": job["epochs"],
        **job["options"],
    }


def training_arguments(folder: str, job: dict[str, Any], shared: dict[str, Any]) -> Any:
    """Return `training_options` in the form that the Trainer takes."""
    from transformers import TrainingArguments

    return TrainingArguments(
        **training_options(folder, job, shared),
        per_device_eval_batch_size=shared["batch"],
        max_steps=job["steps"],
    )


def train_peer(trainer: Any) -> float:
    """Train with a Trainer of transformers, and return the CPU seconds.

    Afterwards the Trainer predicts rows in their given order, which it does not do while it groups
    them by length.
    """
    began = time.process_time()
    trainer.train()
    seconds = time.process_time() - began
    trainer.args.train_sampling_strategy = "random"
    return seconds


def cpu_clock() -> Any:
    """Return a callback that records the CPU seconds at the end of each step."""
    clock = step_clock()
    clock.cpu = []
    clock.on_step_end = lambda *_, **__: clock.cpu.append(time.process_time())
    return clock


def take_slices(
    module: str, jobs: dict[str, dict[str, Any]], seconds: float
) -> dict[str, dict[str, Any]]:
    """Return the answers of each side of a module; the processes run in turn for this many seconds
    until all have ended.
    """
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as temporary:
        running: dict[str, subprocess.Popen[bytes]] = {}
        try:
            for name, job in jobs.items():
                folder = Path(temporary, name)
                folder.mkdir()
                (folder / "job.json").write_text(json.dumps(job))
                with (folder / "log").open("wb") as log:
                    running[name] = subprocess.Popen(
                        [sys.executable, "-m", module, name, str(folder)],
                        stdout=log,
                        stderr=log,
                        env=os.environ | quiet,
                    )
                running[name].send_signal(signal.SIGSTOP)
            _alternate(dict(running), seconds)
            for name, process in running.items():
                if process.returncode:
                    raise RuntimeError((Path(temporary, name) / "log").read_text()[-4000:])
            return {
                name: json.loads((Path(temporary, name) / "answer.json").read_text())
                for name in jobs
            }
        finally:
            for process in running.values():
                if process.poll() is None:
                    process.kill()


def _alternate(waiting: dict[str, "subprocess.Popen[bytes]"], seconds: float) -> None:
    while waiting:
        for name in list(waiting):
            process = waiting[name]
            process.send_signal(signal.SIGCONT)
            try:
                process.wait(seconds)
                del waiting[name]
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGSTOP)


def answer_job(peers: dict[str, Any]) -> None:
    """Run one side in this process; argv has its name and the folder of its job."""
    place = Path(sys.argv[2])
    answer = peers[sys.argv[1]](json.loads((place / "job.json").read_text()))
    (place / "answer.json").write_text(json.dumps(answer))
