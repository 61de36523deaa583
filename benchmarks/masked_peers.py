"""Pretrain bert-tiny on masked words for some minutes, with langue and with transformers' Trainer;
compare tokens per second and the loss on the same held-out reviews.

Both start from the same weights, with the same learning rate (constant after warm-up), tokens per
step, and blocks of 128. transformers concatenates the texts and cuts them into blocks, as its
run_mlm.py does, so that there is no padding; langue keeps documents apart. Both models are
evaluated by the same function with the same masks.
"""

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import facts
from benchmarks.noise import others, wait_until_quiet
from benchmarks.results import save

BLOCK = 128
SEQUENCES = 64
RATE = 1e-3
DEV = 500
HIDDEN = {
    "num_hidden_layers": 2,
    "hidden_size": 128,
    "num_attention_heads": 2,
    "intermediate_size": 512,
}


def run(model: str, imdb: Path, minutes: float, patience: float) -> None:
    """Run the comparison. model: the model whose vocabulary is used."""
    answers: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        job = {"tokenizer": model, "imdb": str(imdb), "minutes": minutes, "folder": folder}
        _begin(job)
        for side in ("transformers", "langue"):
            wait_until_quiet(patience)
            with others() as share:
                subprocess.run(
                    [sys.executable, "-m", "benchmarks.masked_peers", side, json.dumps(job)],
                    check=True,
                )
            answers[side] = json.loads(Path(folder, f"{side}.json").read_text()) | {
                "others": share[0]
            }
        for side, answer in answers.items():
            answer["loss"], answer["accuracy"] = _judged(job, Path(folder) / side)
    lines = [
        "| peer | tokens/s | steps | held-out loss | accuracy | others |",
        "|---|---|---|---|---|---|",
    ]
    for side, each in answers.items():
        speed = f"{each['tokens'] / each['seconds']:,.0f}"
        scores = f"{each['loss']:.3f} | {each['accuracy']:.1%} | {each['others']:.0%}"
        lines.append(f"| {side} | {speed} | {each['steps']:,} | {scores} |")
    speeds = {side: each["tokens"] / each["seconds"] for side, each in answers.items()}
    lines += [
        "",
        f"langue: {speeds['langue'] / speeds['transformers']:.2f} times the tokens a second.",
    ]
    report = (
        f"### masked words, bert-tiny, IMDb, {minutes:g} minutes each\n\n" + "\n".join(lines) + "\n"
    )
    print(report)
    print(f"kept in {save('masked', {'machine': facts(), 'answers': answers}, report)}")


def _begin(job: dict[str, Any]) -> None:
    """Save the common initial weights with transformers."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(job["tokenizer"])
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=BLOCK, **HIDDEN)
    folder = Path(job["folder"]) / "begin"
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _texts(job: dict[str, Any], split: str) -> list[str]:
    with gzip.open(Path(job["imdb"]) / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    return texts[:: len(texts) // DEV] if split == "test" else texts


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """Train with langue's Trainer, which a signal stops when the time is over, as Ctrl-C would."""
    from langue.errors import Interrupted
    from langue.model.language_model import LanguageModel
    from langue.runs.model import load
    from langue.settings.sections import resolve
    from langue.tasks.masked import Masked
    from langue.train.trainer import Trainer

    folder = Path(job["folder"])
    loaded = load(folder / "begin")
    network = loaded.language
    assert isinstance(network, LanguageModel)
    chosen = resolve(_settings() | {"train.epochs": 10**6, "train.max_steps": 10**6})
    objective = Masked(loaded.tokenizer, chosen.task)
    corpus = Memory(loaded.tokenizer, _texts(job, "train"))
    stream = objective.stream(corpus, block=BLOCK, budget=chosen.train.batch_tokens, seed=0)
    (folder / "run").mkdir()
    trainer = Trainer(network, objective, stream, None, chosen.train, folder / "run")
    timer = threading.Timer(60 * job["minutes"], os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with contextlib.suppress(Interrupted):
        trainer.run()
    timer.cancel()
    loaded.save(folder / "langue")
    at = trainer.progress
    return {"steps": at.step, "tokens": at.tokens, "seconds": at.seconds}


def _settings() -> dict[str, Any]:
    rates = {
        "train.lr": RATE,
        "train.schedule": "constant",
        "train.warmup": 0.0001,
        "train.weight_decay": 0.01,
    }
    size = {
        "train.batch_tokens": BLOCK * SEQUENCES,
        "train.batch_examples": 0,
        "data.seq_len": BLOCK,
    }
    return rates | size | {"train.checkpoint_every": 10**6, "train.log_every": 1000}


class Memory:
    """Texts as documents in memory, encoded in one call."""

    def __init__(self, tokenizer: Any, texts: list[str]) -> None:
        found = tokenizer.backend.encode_batch_fast(texts, add_special_tokens=False)
        self.lengths = np.asarray([len(each.ids) for each in found], np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self.flat = np.concatenate([np.asarray(each.ids, np.int32) for each in found])
        self.n_bytes = sum(len(text.encode()) for text in texts)
        self.sources = [("texts", 1.0, 0, len(texts))]

    def tokens(self, documents: Any, begin: Any, length: Any) -> Any:
        first = self.starts[documents] + begin
        return np.concatenate([self.flat[a : a + n] for a, n in zip(first, length, strict=True)])


def theirs(job: dict[str, Any]) -> dict[str, Any]:
    import torch
    from transformers import (
        AutoTokenizer,
        BertForMaskedLM,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainingArguments,
    )

    from langue.runtime import has_bf16

    folder = Path(job["folder"])
    tokenizer = AutoTokenizer.from_pretrained(folder / "begin")
    flat = [token for ids in tokenizer(_texts(job, "train"))["input_ids"] for token in ids]
    rows = [{"input_ids": flat[i : i + BLOCK]} for i in range(0, len(flat) - BLOCK, BLOCK)]
    arguments = TrainingArguments(
        output_dir=str(folder / "hf"),
        per_device_train_batch_size=SEQUENCES,
        max_steps=10**6,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        bf16=has_bf16("cpu"),
        # otherwise bf16 is refused without a GPU
        use_cpu=not torch.cuda.is_available(),
        optim="adamw_torch_fused",
        weight_decay=0.01,
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    clock = _clock(60 * job["minutes"])
    model = BertForMaskedLM.from_pretrained(folder / "begin")
    collator = DataCollatorForLanguageModeling(tokenizer)
    Trainer(
        model=model, args=arguments, train_dataset=rows, data_collator=collator, callbacks=[clock]
    ).train()
    model.save_pretrained(folder / "transformers")
    tokenizer.save_pretrained(folder / "transformers")
    return {
        "steps": clock.steps,
        "tokens": clock.steps * BLOCK * SEQUENCES,
        "seconds": clock.seconds,
    }


def _clock(limit: float) -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """Ends the training when its time is over."""

        steps = 0
        seconds = 0.0
        began = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.steps = state.global_step
            self.seconds = time.perf_counter() - self.began
            control.should_training_stop = self.seconds >= limit

    return Clock()


def _judged(job: dict[str, Any], folder: Path) -> tuple[float, float]:
    import torch

    from langue.runs.model import load
    from langue.tasks.language import HeldOutSet
    from langue.tasks.masked import Masked

    loaded = load(folder)
    objective = Masked(loaded.tokenizer, Masked.Options())
    stream = objective.stream(
        Memory(loaded.tokenizer, _texts(job, "test")), block=BLOCK, budget=8192, seed=0
    )
    assert loaded.language is not None
    metrics, loss = objective.evaluate(
        loaded.language, HeldOutSet(stream), device=torch.device("cpu"), dtype=torch.float32
    )
    assert loss is not None and metrics["accuracy"] is not None
    return loss, metrics["accuracy"]


if __name__ == "__main__":
    side = sys.argv[1]
    job = json.loads(sys.argv[2])
    answer = {"langue": ours, "transformers": theirs}[side](job)
    Path(job["folder"], f"{side}.json").write_text(json.dumps(answer))
