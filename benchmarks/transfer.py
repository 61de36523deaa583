"""Measure the benefit of pretraining, with unlabelled reviews and labelled sentences, as a table
and a curve.

`python -m benchmarks transfer` pretrains a small encoder on the text of the reviews (masked words;
an hour on one core), then fine-tunes it on the sentences, and does the same with an untrained
model: same data, settings and seeds. The learning rate of each side is the best one on the
development set; the test set is evaluated once per run. Finished runs in `folder` are reused.
"""

import json
import statistics
from pathlib import Path
from typing import Any

import langue
from benchmarks import material, results
from benchmarks.machine import facts

MODEL = {"model.preset": "modernbert", "model.dim": 128, "model.n_layers": 3, "model.n_heads": 4}
TOKENS = {"tokenizer.kind": "wordpiece", "tokenizer.lower": True, "tokenizer.vocab_size": 8192}
# Muon's learning rate is 1e-2; AdamW's, for embeddings and norms, is 1e-3.
PRETRAIN = {
    "task.mask_ratio": 0.25,
    "train.optimizer": "muon",
    "train.lr": 1e-3,
    "train.muon_scale": 10,
}
PRETRAIN |= {
    "train.warmup": 0.02,
    "train.schedule": "linear",
    "train.min_lr_ratio": 0.0,
    "data.dev_tokens": 60_000,
}
PRETRAIN |= {"data.seq_len": 128, "train.batch_tokens": 4096, "train.log_every": 10}
FINETUNE = {"train.epochs": 4, "train.batch_examples": 32, "data.duplicates": False}
RATES = (2e-4, 5e-4, 1e-3)
SIDES = {"pretrained": "pretrained here", "scratch": "from scratch"}


def run(folder: Path, steps: int, seeds: int) -> None:
    data = material.data_folder()
    learned = {
        "train.max_steps": steps,
        "train.evaluate_every": max(1, steps // 9),
        "train.checkpoint_every": 200,
    }
    untrained = {"train.max_steps": 1, "train.lr": 1e-9}
    for side, more in (("pretrained", learned), ("scratch", untrained)):
        _pretrain(folder / side, data / "imdb" / "train.jsonl.gz", MODEL | TOKENS | PRETRAIN | more)
    rates = {}
    for side in SIDES:
        tried = {rate: _finetune(folder, side, rate, 0, data / "sst2") for rate in RATES}
        rates[side] = max(
            tried, key=lambda rate: max(accuracy for _, accuracy in tried[rate]["dev"])
        )
    found = {
        side: [_finetune(folder, side, rate, seed, data / "sst2") for seed in range(seeds)]
        for side, rate in rates.items()
    }
    text = _table(
        found, rates, json.loads((folder / "pretrained" / "metrics.json").read_text("utf-8"))
    )
    print(text)
    _draw(found, folder / "transfer.png")
    print(results.save("transfer", {"machine": facts(), "rates": rates, "runs": found}, text))


def _pretrain(out: Path, text: Path, settings: dict[str, Any]) -> None:
    if not (out / "metrics.json").is_file():
        langue.pretrain(
            "masked", data=text, out=out, resume=(out / "recipe.toml").is_file(), **settings
        )


def _finetune(folder: Path, side: str, rate: float, seed: int, data: Path) -> dict[str, Any]:
    """Return the test accuracy, that of the baseline, and the development accuracy by step."""
    out = folder / f"{side}-{rate:g}-{seed}"
    if not (out / "metrics.json").is_file():
        chosen = FINETUNE | {"train.lr": rate, "train.seed": seed}
        langue.finetune(
            "classify", model=folder / side, data=data, out=out, force=out.exists(), **chosen
        )
    metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    log = [json.loads(line) for line in (out / "log.jsonl").read_text("utf-8").splitlines()]
    return {
        "test": metrics["metrics"]["accuracy"],
        "baseline": metrics["baseline"]["metrics"]["accuracy"],
        "dev": [(line["step"], line["accuracy"]) for line in log if line["split"] == "dev"],
    }


def _table(
    found: dict[str, list[dict[str, Any]]], rates: dict[str, float], pretrained: dict[str, Any]
) -> str:
    rows = [
        "### What pretraining bought on SST-2",
        "",
        "| the same model | rate | best on dev | test | |",
        "|---|---|---|---|---|",
    ]
    for side, runs in found.items():
        best = statistics.mean(max(accuracy for _, accuracy in each["dev"]) for each in runs)
        tests = [each["test"] for each in runs]
        each = ", ".join(f"{value:.1%}" for value in tests)
        rows.append(
            f"| {SIDES[side]} | {rates[side]:g} | {best:.1%} | {statistics.mean(tests):.1%} |"
            f" {each} |"
        )
    rows.append(
        f"| n-grams and logistic regression | | | {found['scratch'][0]['baseline']:.1%} | |"
    )
    loss = pretrained["metrics"]["loss"]
    return (
        "\n".join(rows) + f"\n\nHeld-out loss of the masked words after pretraining: {loss:.3f}\n"
    )


def _draw(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Plot the development accuracy by step: the mean over seeds, with each seed faint behind
    it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from langue.evaluation.curves import DEV, INK, QUIET, TRAIN

    figure = Figure(figsize=(7, 4.2), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for (side, runs), colour in zip(found.items(), (DEV, TRAIN), strict=True):
        steps = [step for step, _ in runs[0]["dev"]]
        for each in runs:
            axes.plot(
                steps,
                [100 * accuracy for _, accuracy in each["dev"]],
                color=colour,
                alpha=0.25,
                linewidth=1,
            )
        means = [
            100 * statistics.mean(values)
            for values in zip(*([a for _, a in r["dev"]] for r in runs), strict=True)
        ]
        axes.plot(
            steps, means, color=colour, linewidth=2, marker="o", markersize=4, label=SIDES[side]
        )
    axes.set_title(
        "SST-2, development accuracy (%)", loc="left", fontsize=12, fontweight="bold", color=INK
    )
    axes.set_xlabel("step of fine-tuning", color=QUIET)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e8eaee")
    axes.tick_params(colors=QUIET)
    axes.legend(frameon=False, labelcolor=INK, loc="lower right")
    figure.savefig(path, format="png", metadata={"Software": None})
