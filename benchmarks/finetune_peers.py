"""Fine-tune with one peer on encoded examples; return the tokens and seconds of each step.

Both peers have the same model: the published encoder, BERT's pooler on the first token, two labels,
and the dropout of the published config. Tokens are counted without padding.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.material import read

# (seconds since the beginning, tokens so far) after each step
Steps = list[tuple[float, int]]


def steady(steps: Steps, skip: int, mean_length: float) -> dict[str, Any]:
    """Return examples per second after the first `skip` steps: tokens per second divided by the
    mean length, so that neither side profits from the batches that it happens to draw.
    """
    (begin, before) = steps[skip - 1]
    (end, after) = steps[-1]
    tokens_per_second = (after - before) / (end - begin)
    return {
        "speed": tokens_per_second / mean_length,
        "unit": "examples/s",
        "tokens_per_second": tokens_per_second,
        "seconds": end - begin,
    }


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """Train with langue's own Trainer, as `langue finetune` builds it, timed by its log.jsonl."""
    from langue.data.batch import Examples
    from langue.data.loader import Split
    from langue.hub.checkpoint import describe, load_into, read_checkpoint, without_extra
    from langue.runs.save import head_of
    from langue.settings.sections import resolve
    from langue.tasks.classify import Classify
    from langue.train.embedding_rows import trim_embedding
    from langue.train.trainer import Trainer

    material = read(Path(job["material"]))
    settings = resolve(
        {"train.batch_examples": 32, "train.max_steps": job["steps"], "train.epochs": 1000}
    )
    task = Classify(["neg", "pos"], Classify.Options(pooling=job.get("pooling", "first")))
    described = describe(job["model"])
    checkpoint = read_checkpoint(described, head=head_of(task, described))
    network = task.network(checkpoint.config)
    load_into(network, without_extra(checkpoint.weights), where=job["model"], new="head.")
    examples = Examples(
        tokens=np.concatenate([np.asarray(ids, np.int32) for ids in material.ids]),
        starts=np.concatenate([[0], np.cumsum(material.lengths)]).astype(np.int64),
        segments=None,
        cut=np.zeros(len(material.ids), np.int32),
        targets=np.asarray(material.labels, np.int64),
    )
    with tempfile.TemporaryDirectory() as folder, trim_embedding(network.body, examples):
        Trainer(
            network, task, Split(examples, settings.train), None, settings.train, Path(folder)
        ).run()
        lines = [
            json.loads(line)
            for line in (Path(folder) / "log.jsonl").read_text("utf-8").splitlines()
        ]
    steps = [(line["seconds"], line["tokens"]) for line in lines if line["split"] == "train"]
    return steady(steps, job["skip"], float(np.mean(material.lengths)))


def best_options() -> dict[str, Any]:
    """Return the options that make HF's Trainer fastest here: bf16 only if it is in hardware, fused
    AdamW, batches grouped by length, and no logging, saving or progress bars. There are no loader
    processes, since the ids are ready and such processes would take cores.
    """
    from langue.runtime import has_bf16

    return {
        "bf16": has_bf16("cpu"),
        # otherwise bf16 is refused without a GPU
        "use_cpu": not torch.cuda.is_available(),
        "optim": "adamw_torch_fused",
        "train_sampling_strategy": "group_by_length",
        "dataloader_pin_memory": False,
        "dataloader_num_workers": 0,
        "logging_strategy": "no",
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def hf(job: dict[str, Any]) -> dict[str, Any]:
    """Train with transformers' Trainer, with `job["options"]` over its defaults, timed by a
    callback.
    """
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        Trainer,
        TrainingArguments,
    )

    material = read(Path(job["material"]))
    rows = [
        {"input_ids": i, "labels": n} for i, n in zip(material.ids, material.labels, strict=True)
    ]
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    model = AutoModelForSequenceClassification.from_pretrained(
        job["model"], num_labels=2, attn_implementation=job.get("attention", "sdpa")
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=32,
            max_steps=job["steps"],
            **job["options"],
        )
        clock = step_clock()
        trainer: Any = Trainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            processing_class=tokenizer,
            callbacks=[clock],
        )
        collate = trainer.data_collator
        counts = clock.counts

        def counting(items: list[Any]) -> Any:
            # batches are collated in the order in which they are used
            counts.append(sum(len(item["input_ids"]) for item in items))
            return collate(items)

        trainer.data_collator = counting
        trainer.train()
    tokens = np.cumsum(counts[: len(clock.times)]).tolist()
    return steady(
        list(zip(clock.times, tokens, strict=True)), job["skip"], float(np.mean(material.lengths))
    )


def step_clock() -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """Records the end of each step, and the number of tokens in each batch."""

        def __init__(self) -> None:
            self.times: list[float] = []
            self.counts: list[int] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.times.append(time.perf_counter())

    return Clock()


PEERS = {"langue": ours, "hf": hf}
