"""Compare `langue finetune` and HF's Trainer on IMDb reviews: test accuracy and wall time.

langue is the command as users type it, with benchmarks/imdb.toml. HF is the Trainer with its best
options, 256 tokens and one epoch, followed by the test set. The whole takes about an hour on two
cores; with `hf_steps`, only that many of HF's steps and a tenth of its test set are timed and
extrapolated, which the report says.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import material, peers, results
from benchmarks.machine import facts, rates
from langue.hub.checkpoint import describe, read_checkpoint

RECIPE = Path(__file__).parent / "imdb.toml"


def run(
    model: str | None, data: str | None, hf_steps: int, words: list[str], sides: list[str]
) -> None:
    folder = str(material.model_folder(model))
    source = data or str(material.data_folder() / "imdb")
    machine = facts()
    measured = rates(read_checkpoint(describe(folder)).config)
    text = results.machine_text(machine, measured)
    print(text)
    content: dict[str, Any] = {"machine": machine, "rates": measured}
    if "langue" in sides:
        content["langue"] = _ours(folder, source, words)
    if "hf" in sides:
        content["hf"] = peers.run("imdb_hf", {"model": folder, "data": source, "steps": hf_steps})
    shown = _table(content)
    print(shown)
    print(results.save("imdb", content, f"{text}\n{shown}"))


def _ours(model: str, data: str, words: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "run"
        command = [sys.executable, "-m", "langue", "finetune", *words, "--recipe", str(RECIPE)]
        began = time.perf_counter()
        subprocess.run([*command, "--model", model, "--data", data, "--out", str(out)], check=True)
        seconds = time.perf_counter() - began
        metrics = json.loads((out / "metrics.json").read_text("utf-8"))
        log = [json.loads(line) for line in (out / "log.jsonl").read_text("utf-8").splitlines()]
    return {
        "accuracy": metrics["metrics"]["accuracy"],
        "split": metrics["split"],
        "interval": metrics["intervals"].get("accuracy"),
        "baseline": metrics["baseline"],
        "seconds": seconds,
        "training_seconds": log[-1]["seconds"],
        "settings": words,
    }


def _table(content: dict[str, Any]) -> str:
    rows = [
        "| | test accuracy | training (with reading and dev) | whole command |",
        "|---|---|---|---|",
    ]
    for name in ("langue", "hf"):
        if name not in content:
            continue
        side = content[name]
        accuracy = "not measured" if side["accuracy"] is None else f"{side['accuracy']:.2%}"
        whole = f"{side['seconds']:,.0f} s"
        how = " (extrapolated)" if side.get("extrapolated") else ""
        rows.append(
            f"| {name} | {accuracy} | {side['training_seconds']:,.0f} s{how} | {whole}{how} |"
        )
    return "\n".join(rows) + "\n"
