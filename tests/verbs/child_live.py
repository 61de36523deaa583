"""Verbs at work in a process of their own, each held up on the way.

What it is about to do is a line of stdout; with a line of stdin it goes on.
"""

import json
import sys
from pathlib import Path

import langue.data.corpus.builder
import langue.runs.judge
import langue.runs.train_tokenizer
import langue.verbs.finetune
import langue.verbs.pretrain
import langue.verbs.quickstart
from tests.tiny import SHORT

PRETRAINING = {
    "model.size": "41k",
    "data.seq_len": 16,
    "train.batch_tokens": 64,
    "train.max_steps": 2,
}


def hold(what):
    print(what, flush=True)
    sys.stdin.readline()


def held(module, name, what):
    """Have a function of a module wait before it begins."""
    function = getattr(module, name)

    def waits(*arguments, **named):
        hold(what)
        return function(*arguments, **named)

    setattr(module, name, waits)


def work(folder: Path) -> None:
    given = json.loads((folder / "given.json").read_text())
    held(langue.runs.judge, "judge_rows", "finetune judges")
    held(langue.runs.judge, "judge_text", "pretrain judges")
    held(langue.runs.train_tokenizer, "train", "tokenizer train")
    held(langue.data.corpus.builder, "_write", "data tokenize")
    langue.train_tokenizer(folder / "text.txt", out=folder / "tokenizer", tokenizer__kind="bytes")
    langue.tokenize(
        folder / "text.txt", tokenizer=folder / "tokenizer", out=folder / "corpus", document="line"
    )
    langue.verbs.pretrain.pretrain(
        data=str(folder / "corpus"),
        out=folder / "language",
        show=lambda prepared: hold("pretrain begins"),
        **PRETRAINING,
    )
    langue.verbs.finetune.finetune(
        model=given["model"],
        data=str(folder / "data.jsonl"),
        out=folder / "run",
        show=lambda prepared: hold("finetune begins"),
        **SHORT,
    )
    langue.verbs.quickstart.embedded_model = lambda: given["model"]
    langue.verbs.quickstart.build = lambda: given["docstrings"]
    shown = {"show": lambda prepared: hold("quickstart begins")}
    langue.verbs.quickstart.quickstart(folder / "quick", **SHORT, **shown)
