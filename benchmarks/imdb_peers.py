"""Measure the test accuracy and wall time of HF's Trainer on the review data."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.finetune_peers import best_options, step_clock

PART = 10  # for extrapolation, one of this many test reviews is scored


def hf(job: dict[str, Any]) -> dict[str, Any]:
    """Train one epoch at 256 tokens with the best options, then score the test set; with `steps`, a
    part of both, extrapolated.
    """
    from datasets import load_dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        Trainer,
        TrainingArguments,
    )

    began = time.perf_counter()
    rows = load_dataset(
        "json", data_files={s: str(Path(job["data"]) / f"{s}.jsonl.gz") for s in ("train", "test")}
    )
    labels = sorted(set(rows["train"]["label"]))
    tokenizer = AutoTokenizer.from_pretrained(job["model"])

    def encode(split: str) -> list[dict[str, Any]]:
        ids = tokenizer(list(rows[split]["text"]), truncation=True, max_length=256)["input_ids"]
        names = rows[split]["label"]
        return [
            {"input_ids": i, "labels": labels.index(n)} for i, n in zip(ids, names, strict=True)
        ]

    train = encode("train")
    model = AutoModelForSequenceClassification.from_pretrained(job["model"], num_labels=len(labels))
    with tempfile.TemporaryDirectory() as folder:
        options = best_options() | {
            "num_train_epochs": 1,
            "per_device_train_batch_size": 32,
            "output_dir": folder,
        }
        options |= {"max_steps": job["steps"]} if job["steps"] else {}
        clock = step_clock()
        trainer: Any = Trainer(
            model=model,
            args=TrainingArguments(per_device_eval_batch_size=64, **options),
            train_dataset=train,
            processing_class=tokenizer,
            callbacks=[clock],
        )
        ready = time.perf_counter() - began
        trainer.train()
        if job["steps"]:
            test = encode("test")[::PART]
            began = time.perf_counter()
            trainer.predict(test)
            scoring = PART * (time.perf_counter() - began)
            return _extrapolated(clock.times, ready, -(-len(train) // 32), scoring)
        trained = time.perf_counter() - began
        predictions = trainer.predict(encode("test"))
    accuracy = float((np.argmax(predictions.predictions, 1) == predictions.label_ids).mean())
    seconds = time.perf_counter() - began
    return {
        "accuracy": accuracy,
        "seconds": seconds,
        "training_seconds": trained,
        "extrapolated": False,
    }


def _extrapolated(times: list[float], ready: float, total: int, scoring: float) -> dict[str, Any]:
    """Return the wall time of the whole, extrapolated from the mean of the measured steps without
    the first eighth; no accuracy.
    """
    skip = max(1, len(times) // 8)
    per_step = (times[-1] - times[skip - 1]) / (len(times) - skip)
    training = ready + per_step * total
    return {
        "accuracy": None,
        "seconds": training + scoring,
        "training_seconds": training,
        "extrapolated": True,
    }


PEERS = {"imdb_hf": hf}
