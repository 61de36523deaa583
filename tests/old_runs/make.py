"""Make an archive of tiny runs with the langue on the path, for tests/test_old_runs.py to hold
later ones against.

From an empty folder, with a checkout of the version that is to be kept:

    PYTHONPATH=CHECKOUT OMP_NUM_THREADS=1 python .../tests/old_runs/make.py VERSION.tar.gz

The archive has a model, its data, finished runs of four kinds, two runs that were killed after
their second checkpoint, and expected.json: what each run, finished, scores and predicts.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import langue
from langue.model.config import ModelConfig
from langue.train import trainer
from tests.tiny import GOOD, tiny_bert, write_jsonl

CONFIG = ModelConfig(
    vocab_size=96, dim=8, n_layers=1, n_heads=2, ffn_dim=8, max_length=32, n_segments=2
)
WORDS = ["the", "film", "plot", "was", "it", "night", *GOOD[:3]]
TEXTS = ["a good film", "the plot was bad and dull", "it was a long night"]
FINETUNE = {
    "train.epochs": 12,
    "train.batch_examples": 8,
    "train.lr": 2e-2,
    "train.precision": "fp32",
}
FINETUNE |= {"data.duplicates": False}
PRETRAIN = {
    "model.dim": 8,
    "model.n_layers": 1,
    "model.n_heads": 2,
    "tokenizer.kind": "bytes",
    "data.seq_len": 32,
}
PRETRAIN |= {
    "train.max_steps": 48,
    "train.batch_tokens": 128,
    "train.lr": 1e-2,
    "train.precision": "fp32",
}
PRETRAIN |= {"data.dev_fraction": 0.3}
STEPS = {"train.checkpoint_every": 12, "train.evaluate_every": 12}
RUNS = {
    "classify": ("finetune", "classify", FINETUNE),
    "multi-label": ("finetune", "classify", FINETUNE | {"task.multi_label": True}),
    "regress": ("finetune", "regress", FINETUNE),
    "causal": ("pretrain", "causal", PRETRAIN),
}
STOPPED = {"classify-stopped": "classify", "causal-stopped": "causal"}
LEFT_OUT = ("report.html", "curves.png")  # large, and read by people alone


def data() -> None:
    drawn = random.Random(0)
    for name in ("classify", "multi-label", "regress"):
        column = "score" if name == "regress" else "label"
        for split, count in (("train", 32), ("dev", 12), ("test", 12)):
            rows = []
            for _ in range(count):
                good = drawn.random() < 0.5
                words = [
                    *drawn.choices(WORDS[:6], k=drawn.randint(2, 8)),
                    "good" if good else "bad",
                ]
                label: object = "pos" if good else "neg"
                if name == "multi-label":
                    label = "|".join([*["good"] * good, *["film"] * ("film" in words)])
                elif name == "regress":
                    label = 2.0 * good + words.count("film")
                rows.append({"text": " ".join(words), column: label})
            write_jsonl(Path("data") / name / f"{split}.jsonl", rows)
    texts = [" ".join(drawn.choices(WORDS, k=drawn.randint(5, 20))) for _ in range(40)]
    write_jsonl(Path("data/text.jsonl"), [{"text": text} for text in texts])


def train(kind: str, out: str, **more: int) -> None:
    verb, task, settings = RUNS[kind]
    if verb == "finetune":
        langue.finetune(task, model="model", data=f"data/{kind}", out=out, **settings, **more)
    else:
        langue.pretrain(task, data="data/text.jsonl", out=out, **settings, **more)


def stop(kind: str, out: str) -> None:
    """Train, and die as a killed process does once the second checkpoint is there."""
    save = trainer.save_state
    saved = []

    def save_and_die(*given: object) -> None:
        save(*given)
        saved.append(1)
        if len(saved) == 2:
            os._exit(0)

    trainer.save_state = save_and_die
    train(kind, out, **STEPS)


def answers(run: str, verb: str) -> object:
    model = langue.load(run)
    return (
        model.predict(TEXTS, top=None)
        if verb == "finetune"
        else model.generate(TEXTS, max_tokens=8)
    )


def main(archive: str) -> None:
    data()
    tiny_bert(Path("model"), CONFIG)
    expected = {}
    for kind, (verb, _, _) in RUNS.items():
        train(kind, f"runs/{kind}")
        metrics = json.loads(Path(f"runs/{kind}/metrics.json").read_text())["metrics"]
        expected[kind] = {"metrics": metrics, "answers": answers(f"runs/{kind}", verb)}
    for out, kind in STOPPED.items():
        train(kind, f"whole/{out}", **STEPS)
        metrics = json.loads(Path(f"whole/{out}/metrics.json").read_text())["metrics"]
        expected[out] = {"metrics": metrics, "answers": answers(f"whole/{out}", RUNS[kind][0])}
        subprocess.run([sys.executable, __file__, "--stop", kind, f"runs/{out}"], check=True)
    Path("expected.json").write_text(json.dumps({"texts": TEXTS, "runs": expected}, indent=1))
    for kind in RUNS:  # a finished run is used without its checkpoints
        for checkpoint in Path(f"runs/{kind}/checkpoints").glob("*-0*"):
            shutil.rmtree(checkpoint)
    with tarfile.open(archive, "w:gz") as packed:
        for name in ("model", "data", "runs", "expected.json"):
            packed.add(name, filter=lambda item: None if item.name.endswith(LEFT_OUT) else item)


if __name__ == "__main__":
    if sys.argv[1] == "--stop":
        stop(*sys.argv[2:])
    else:
        main(sys.argv[1])
