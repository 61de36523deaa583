"""Train nanoGPT and langue on the characters of a text, as whole processes in turn; compare wall
time, steps, and the loss on the last tenth of the text.

nanoGPT runs its own train.py with the settings in its README: for a CPU (4 layers, width 128,
blocks of 64, 12 per step, 2,000 steps), or for a GPU (6 layers, width 384, blocks of 256, 64 per
step, 5,000 steps). langue runs `langue pretrain` with shakespeare.toml or shakespeare-gpu.toml: the
same number of parameters, fewer tokens. Both are evaluated on the same characters by their best
evaluation; nanoGPT by its own estimate, which draws random blocks. Without a GPU, nanoGPT would
take most of a day with its setting for one; then langue runs alone and is compared with nanoGPT's
published loss.
"""

import json
import pickle
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import facts
from benchmarks.noise import others, wait_until_quiet
from benchmarks.results import save
from langue.runtime import device

PUBLISHED = 1.4697  # from nanoGPT's README, for its GPU setting


@dataclass(frozen=True)
class Setting:
    """A setting in nanoGPT's README."""

    recipe: str  # our recipe, in this folder
    theirs: dict[str, Any]  # options on top of config/train_shakespeare_char.py


SETTINGS = {
    "cpu": Setting(
        "shakespeare.toml",
        {
            **{
                "device": "cpu",
                "compile": False,
                "eval_iters": 20,
                "log_interval": 100,
                "block_size": 64,
            },
            **{
                "batch_size": 12,
                "n_layer": 4,
                "n_head": 4,
                "n_embd": 128,
                "max_iters": 2000,
                "lr_decay_iters": 2000,
            },
            "dropout": 0.0,
        },
    ),
    "gpu": Setting("shakespeare-gpu.toml", {"device": "cuda", "log_interval": 100}),
}


def run(nanogpt: Path | None, text: Path, rounds: int, patience: float, name: str) -> None:
    setting = SETTINGS[name]
    sides: dict[str, Callable[[], dict[str, Any]]] = {"langue": lambda: ours(text, setting)}
    if nanogpt is not None:
        prepare(nanogpt, text)
        sides = {"nanoGPT": lambda: theirs(nanogpt, setting), **sides}
    answers: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, work in sides.items():
            wait_until_quiet(patience)
            with others() as share:
                found = work()
            answers[side].append(found | {"others": share[0]})
            print(f"{side}: {answers[side][-1]}", file=sys.stderr)
    lines = [
        "| peer | steps | loss on the last tenth | seconds, whole process | others |",
        "|---|---|---|---|---|",
    ]
    for side, found in answers.items():
        for each in found:
            lines.append(
                f"| {side} | {each['steps']:,} | {each['loss']:.4f} | {each['seconds']:.1f} |"
                f" {each['others']:.0%} |"
            )
    if nanogpt is None:
        lines += ["", f"nanoGPT did not run; what it publishes is {PUBLISHED}."]
    else:
        ratios = [
            a["seconds"] / b["seconds"]
            for a, b in zip(answers["nanoGPT"], answers["langue"], strict=True)
        ]
        lines += ["", f"langue takes 1/{min(ratios):.2f} to 1/{max(ratios):.2f} of nanoGPT's time."]
    report = (
        f"### tinyshakespeare by character, nanoGPT's {name.upper()} setting\n\n"
        + "\n".join(lines)
        + "\n"
    )
    print(report)
    print(
        "kept in"
        f" {save('pretrain', {'machine': facts(), 'setting': name, 'answers': answers}, report)}"
    )


def needs(name: str) -> bool:
    """Return whether nanoGPT runs: its GPU setting only runs on a GPU."""
    return name == "cpu" or device().type == "cuda"


def prepare(nanogpt: Path, text: Path) -> None:
    """Fill its data folder in the same way as its own prepare.py, which would download the text."""
    folder = nanogpt / "data" / "shakespeare_char"
    characters = text.read_text("utf-8")
    numbers = {character: index for index, character in enumerate(sorted(set(characters)))}
    ids = np.asarray([numbers[character] for character in characters], np.uint16)
    ids[: int(0.9 * len(ids))].tofile(folder / "train.bin")
    ids[int(0.9 * len(ids)) :].tofile(folder / "val.bin")
    meta = {
        "vocab_size": len(numbers),
        "stoi": numbers,
        "itos": {index: c for c, index in numbers.items()},
    }
    # nanoGPT's format; we never read such a file
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))


def theirs(nanogpt: Path, setting: Setting) -> dict[str, Any]:
    words = [f"--{key}={value}" for key, value in setting.theirs.items()]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "train.py", "config/train_shakespeare_char.py", *words],
        **{"cwd": nanogpt, "check": True, "capture_output": True, "text": True},
    )
    seconds = time.perf_counter() - began
    losses = re.findall(r"step (\d+): train loss [\d.]+, val loss ([\d.]+)", done.stdout)
    return {
        "steps": int(losses[-1][0]),
        "loss": min(float(loss) for _, loss in losses),
        "seconds": seconds,
    }


def ours(text: Path, setting: Setting) -> dict[str, Any]:
    recipe = Path(__file__).parent / setting.recipe
    with tempfile.TemporaryDirectory() as folder:
        words = ["--recipe", str(recipe), "--data", str(text), "--out", f"{folder}/run", "--json"]
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "langue", "pretrain", *words], check=True, capture_output=True
        )
        seconds = time.perf_counter() - began
        content = json.loads(Path(folder, "run", "metrics.json").read_text())
        log = [
            json.loads(line) for line in Path(folder, "run", "log.jsonl").read_text().splitlines()
        ]
    return {
        "steps": log[-1]["step"],
        "loss": content["metrics"]["loss"],
        "seconds": seconds,
        "training_seconds": log[-1]["seconds"],
        "baseline_loss": content["baseline"]["metrics"]["loss"],
    }
