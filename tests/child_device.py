"""What langue computes, on the device named: `python -m tests.child_device DEVICE PRECISION
FOLDER`, which holds a folder for each published family. Prints JSON: a name, and numbers or words,
for each thing done."""

import contextlib
import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WORDS = [
    *("the", "a", "dog", "cat", "bird", "sees", "hears", "runs", "sleeps", "red", "blue", "small"),
    *("and", "then", "near", "house", "tree", "good", "bad"),
]
STILL = {"model.dropout": 0.0, "model.attention_dropout": 0.0, "train.max_steps": 4,
    "train.lr": 3e-3,
         "train.evaluate_every": 4}  # fmt: skip
NEW = {**STILL, "model.dim": 32, "model.n_layers": 2, "model.n_heads": 2, "train.batch_tokens": 256,
    "data.seq_len": 32,
       "tokenizer.vocab_size": 300}  # fmt: skip
PRETRAINED: list[tuple[str, dict[str, Any]]] = [
    ("causal", {"train.optimizer": "muon", "train.ema": 0.9, "train.z_loss": 1e-3}),
    ("causal", {"model.preset": "gpt2", "train.accumulate": 2}),
    ("causal", {"model.preset": "llama", "train.activation_checkpointing": True}),
    ("masked", {"model.preset": "bert", "task.pairs": "next"}),
    ("masked", {"model.preset": "modernbert"}),
    ("denoise", {}),
]
TUNED: list[dict[str, Any]] = [{}, {"task.pooling": "first"}, {"task.class_weights": "balanced"}]

EMBEDDED: list[dict[str, Any]] = [
    {"task.loss": "cosine"},
    {"task.loss": "cosent"},
    {"task.loss": "in_batch", "task.cached_tokens": 100, "task.symmetric": True},
    {"task.loss": "in_batch", "task.matryoshka": "16"},
]


def scored_pairs(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By the share of the words of one that the other has."""
    made = []
    for row in pairs:
        first, second = set(row["text"].split()), set(row["pair"].split())
        made.append({**row, "score": len(first & second) / len(first | second)})
    return made


def texts() -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choice(WORDS) for _ in range(draw.randrange(5, 60))) for _ in range(120)]


def _losses(run: Any) -> list[float]:
    lines = [
        json.loads(line) for line in (run.folder / "log.jsonl").read_text("utf-8").splitlines()
    ]
    return [line["loss"] for line in lines]


def embedded(
    precision: str, bert: Path, rows: list[str], out: Path, common: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    import langue

    pairs = [{"text": row, "pair": rows[place - 1]} for place, row in enumerate(rows)]
    for index, words in enumerate(EMBEDDED):
        run = langue.finetune(
            task="embed",
            model=bert,
            data=scored_pairs(pairs) if words["task.loss"] in ("cosine", "cosent") else pairs,
            out=out / f"embedded-{index}",
            **common,
            **words,
        )
        yield f"embed {words}", _losses(run)
    if precision == "fp32":  # in bf16 trainings drift apart; of them the losses are compared
        yield "encoded", langue.load(run.folder).encode(rows[:9], dim=16).sum(0).tolist()
    yield "shortened", langue.load(bert).encode(rows[:9], dim=16).sum(0).tolist()


def done(precision: str, folder: Path) -> Iterator[tuple[str, Any]]:
    import langue
    from langue.errors import Interrupted
    from langue.train import trainer
    from tests.tiny import tiny_bert

    out = folder / f"runs-{os.environ.get('LANGUE_DEVICE', 'cpu')}-{precision}"
    rows = texts()
    given = [{"text": row} for row in rows]
    for index, (objective, words) in enumerate(PRETRAINED):
        settings = {**NEW, **words, "train.precision": precision}
        run = langue.pretrain(objective, data=given, out=out / f"pretrained-{index}", **settings)
        yield f"{objective} {words}", _losses(run)
    labelled = [
        {"text": row, "label": "good" if row.count("good") >= row.count("bad") else "bad"}
        for row in rows
    ]
    scored = [{"text": row, "score": float(row.count("good"))} for row in rows]
    bert = tiny_bert(out / "bert")
    common = {**STILL, "task.dropout": 0.0, "train.batch_tokens": 512, "train.precision": precision}
    for index, words in enumerate(TUNED):
        run = langue.finetune(
            task="classify",
            model=bert,
            data=labelled,
            out=out / f"tuned-{index}",
            **common,
            **words,
        )
        yield f"classify {words}", _losses(run)
    yield "probabilities", [each["score"] for each in langue.load(run.folder).predict(rows[:9])]
    yield "judged again", langue.evaluate(run.folder, data=labelled)["metrics"]["calibration_error"]
    run = langue.finetune(task="regress", model=bert, data=scored, out=out / "scores", **common)
    yield "regress", [each["score"] for each in langue.load(run.folder).predict(rows[:9])]
    common.pop("task.dropout")
    yield from embedded(precision, bert, rows, out, common)
    yield "encode", langue.load(bert).encode(rows[:9]).sum(0).tolist()
    # With dropout, cut off half-way and resumed.
    words = {**NEW, "model.preset": "gpt2", "train.precision": precision}
    words |= {"model.dropout": 0.1, "model.attention_dropout": 0.1}
    whole = langue.pretrain(data=given, out=out / "whole", **words)
    step = trainer.Trainer._step

    def stops(self: Any, batches: Any) -> Any:
        line = step(self, batches)
        self.interrupted = self.progress.step == 2
        return line

    trainer.Trainer._step = stops  # type: ignore[method-assign]
    with contextlib.suppress(Interrupted):
        langue.pretrain(data=given, out=out / "cut", **words)
    trainer.Trainer._step = step  # type: ignore[method-assign]
    yield "resumed", _losses(langue.pretrain(out=out / "cut", resume=True)) == _losses(whole)
    for model in sorted((folder / "families").iterdir()):
        yield from _published(model, precision)


def _published(folder: Path, precision: str) -> Iterator[tuple[str, Any]]:
    import langue

    model = langue.load(folder, dtype=precision)
    ids = [[5, 9, 7], [8, 30, 41, 22, 6, 19, 11], [17, 12, 33]]
    both = model.config.architecture == "encoder-decoder"
    logits = model.logits(ids, ids) if both else model.logits(ids)
    yield f"{folder.name}: logits", [float(x) for each in logits for x in each.flatten()[:50]]
    if model.config.architecture != "encoder":
        yield f"{folder.name}: written", model.generate(ids, max_tokens=5)
        yield (
            f"{folder.name}: drawn",
            model.generate(ids, max_tokens=5, temperature=1.0, top_k=9, top_p=0.9),
        )


if __name__ == "__main__":
    device, precision, where = sys.argv[1:]
    if device != "cpu":
        from tests.other_device import NAME, register

        register()
        os.environ["LANGUE_DEVICE"] = NAME
    print(json.dumps(dict(done(precision, Path(where)))))
