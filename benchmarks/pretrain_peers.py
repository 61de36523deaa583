"""What arrives: a checkout of nanoGPT and a text. What leaves: both trained on it by character, whole processes in
turn: wall time, steps, and the loss on the last tenth of the text.

nanoGPT runs its own train.py with the settings that its README gives for a CPU (4 layers, 128 wide, blocks of 64, 12 of
them a step, 2,000 steps); langue runs `langue pretrain` with shakespeare.toml: as many parameters, as many tokens a
step, fewer steps. Both are judged on the same characters; nanoGPT by its own estimate, which draws blocks at random.
"""

import json
import pickle
import re
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import facts
from benchmarks.noise import others, wait_until_quiet
from benchmarks.results import save

RECIPE = Path(__file__).parent / "shakespeare.toml"
NANOGPT = {
    **{"device": "cpu", "compile": False, "eval_iters": 20, "log_interval": 100, "block_size": 64, "batch_size": 12},
    **{"n_layer": 4, "n_head": 4, "n_embd": 128, "max_iters": 2000, "lr_decay_iters": 2000, "dropout": 0.0},
}


def run(nanogpt: Path, text: Path, rounds: int, patience: float) -> None:
    prepare(nanogpt, text)
    answers: dict[str, list[dict[str, Any]]] = {"nanoGPT": [], "langue": []}
    for _ in range(rounds):
        for name, side in (("nanoGPT", partial(theirs, nanogpt)), ("langue", partial(ours, text))):
            wait_until_quiet(patience)
            with others() as share:
                found = side()
            answers[name].append(found | {"others": share[0]})
            print(f"{name}: {answers[name][-1]}", file=sys.stderr)
    lines = ["| peer | steps | loss on the last tenth | seconds, whole process | others |", "|---|---|---|---|---|"]
    for name, found in answers.items():
        for each in found:
            lines.append(
                f"| {name} | {each['steps']:,} | {each['loss']:.4f} | {each['seconds']:.1f} | {each['others']:.0%} |"
            )
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(answers["nanoGPT"], answers["langue"], strict=True)]
    lines += ["", f"langue takes 1/{min(ratios):.2f} to 1/{max(ratios):.2f} of nanoGPT's time."]
    report = "### tinyshakespeare by character, nanoGPT's CPU setting\n\n" + "\n".join(lines) + "\n"
    print(report)
    print(f"kept in {save('pretrain', {'machine': facts(), 'answers': answers}, report)}")


def prepare(nanogpt: Path, text: Path) -> None:
    """Its data folder, as its own prepare.py makes it; that one would fetch the text."""
    folder = nanogpt / "data" / "shakespeare_char"
    characters = text.read_text("utf-8")
    numbers = {character: index for index, character in enumerate(sorted(set(characters)))}
    ids = np.asarray([numbers[character] for character in characters], np.uint16)
    ids[: int(0.9 * len(ids))].tofile(folder / "train.bin")
    ids[int(0.9 * len(ids)) :].tofile(folder / "val.bin")
    meta = {"vocab_size": len(numbers), "stoi": numbers, "itos": {index: c for c, index in numbers.items()}}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))  # its format; nothing is read from one here


def theirs(nanogpt: Path) -> dict[str, Any]:
    words = [f"--{key}={value}" for key, value in NANOGPT.items()]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "train.py", "config/train_shakespeare_char.py", *words],
        **{"cwd": nanogpt, "check": True, "capture_output": True, "text": True},
    )
    seconds = time.perf_counter() - began
    losses = re.findall(r"step (\d+): train loss [\d.]+, val loss ([\d.]+)", done.stdout)
    return {"steps": int(losses[-1][0]), "loss": float(losses[-1][1]), "seconds": seconds}


def ours(text: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        words = ["--recipe", str(RECIPE), "--data", str(text), "--out", f"{folder}/run", "--json"]
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "langue", "pretrain", *words], check=True, capture_output=True)
        seconds = time.perf_counter() - began
        content = json.loads(Path(folder, "run", "metrics.json").read_text())
        log = [json.loads(line) for line in Path(folder, "run", "log.jsonl").read_text().splitlines()]
    return {
        "steps": log[-1]["step"],
        "loss": content["metrics"]["loss"],
        "seconds": seconds,
        "training_seconds": log[-1]["seconds"],
        "baseline_loss": content["baseline"]["metrics"]["loss"],
    }
