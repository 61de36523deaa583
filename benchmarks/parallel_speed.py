"""Measure tokens per second of one process, and of two that train together.

Every process computes with one thread and communicates through gloo; the batch is the same for any
number of processes. The figure is only meaningful with two cores; the last column has the fraction
that other processes took.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import results
from benchmarks.machine import facts
from benchmarks.noise import others, wait_until_quiet
from langue.data.batch import Examples
from langue.data.loader import Split
from langue.model.config import ModelConfig
from langue.runtime import rank
from langue.settings.sections import TrainSettings
from langue.tasks.classify import Classify
from langue.train.parallel import barrier, processes
from langue.train.trainer import Trainer

CONFIG = ModelConfig(vocab_size=8192, dim=256, n_layers=4, n_heads=8, ffn_dim=1024, max_length=128)
PEERS = {"one process": (1, "auto"), "two, ddp": (2, "ddp"), "two, fsdp": (2, "fsdp")}
LENGTH = 64
SKIP = 4  # warm-up steps


def run(rounds: int, scale: float, patience: float) -> None:
    """Run the comparison; `scale` multiplies the steps of a round."""
    steps = SKIP + max(4, round(12 * scale))
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in PEERS}
    machine = facts()
    for _ in range(rounds):
        for name, (count, kind) in PEERS.items():
            wait_until_quiet(patience)
            with others() as share:
                speed = _measure(count, kind, steps)
            answers[name].append({"speed": speed, "unit": "tokens/s", "others": share[0]})
    lines = results.summary(answers, "one process", {})
    for line in lines:  # speed-up of two processes over one, not the reverse
        line["ratios"] = [1 / ratio for ratio in line["ratios"]]
        line["ratio"] = 1 / line["ratio"]
    title = (
        f"training, width {CONFIG.dim}, {CONFIG.n_layers} layers, 32 x {LENGTH} tokens a step, a"
        " thread a process"
    )
    text = (
        f"### {title}\n\n| processes | median | speed-up | in each round | others"
        " |\n|---|---|---|---|---|\n"
    )
    for line in lines:
        each = ", ".join(f"{ratio:.2f}" for ratio in line["ratios"])
        speed = f"{line['median']:.0f} tokens/s"
        text += (
            f"| {line['peer']} | {speed} | {line['ratio']:.2f} | {each} | {line['others']:.0%} |\n"
        )
    print(text)
    print(results.save("parallel", {"machine": machine, "lines": lines}, text))


def _measure(count: int, kind: str, steps: int) -> float:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": "1",
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.parallel_speed", folder, kind, str(steps)]
        children = [
            subprocess.Popen(
                command,
                env=os.environ | common | {"RANK": str(number), "LOCAL_RANK": str(number)},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            for number in range(count)
        ]
        said = [child.communicate(timeout=600)[0] for child in children]
    return float(json.loads(said[0])["speed"])


def _child(folder: Path, kind: str, steps: int) -> None:
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    count = 32 * steps
    length = LENGTH
    starts = np.arange(count + 1, dtype=np.int64) * length
    tokens = random.integers(0, CONFIG.vocab_size, count * length).astype(np.int32)
    examples = Examples(
        tokens, starts, None, np.zeros(count, np.int32), random.integers(0, 2, count)
    )
    settings = TrainSettings.model_validate(
        {"parallel": kind, "epochs": 1, "checkpoint_every": 10**6}
    )
    task = Classify(["a", "b"], Classify.Options())
    with processes():
        trainer = Trainer(
            task.network(CONFIG), task, Split(examples, settings), None, settings, folder
        )
        trainer.model.train()
        batches = trainer.loader.iterate(0, steps, trainer.device)
        for step in range(steps):
            if step == SKIP:
                barrier()
                began = time.perf_counter()
            trainer._step(next(batches)[1])
        barrier()
        seconds = time.perf_counter() - began
    if rank() == 0:
        print(json.dumps({"speed": (steps - SKIP) * 32 * LENGTH / seconds}))


if __name__ == "__main__":
    _child(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
