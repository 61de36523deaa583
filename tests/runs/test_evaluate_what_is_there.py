"""What `evaluate` judges where nothing is said: the test split, or dev, or text."""

import math
from pathlib import Path

import numpy as np
import pytest

import langue
from langue.cli import run as command
from tests.tiny import reviews, tiny_bert, write_jsonl
from tests.tiny_decoder import tiny_decoder

TEXT = "A plain text, seen by nobody before."


@pytest.mark.parametrize("other", [False, True])
def test_a_run_without_a_test_split_is_judged_on_dev(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: bool
) -> None:
    model = tiny_bert(tmp_path / "model")
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "dev"):
        write_jsonl(data / f"{split}.jsonl", reviews(40, seed=len(split)))
    runs = [tmp_path / f"run{seed}" for seed in range(1 + other)]
    for seed, run in enumerate(runs):
        langue.finetune(model=model, data=data, out=run, train__max_steps=1, train__seed=seed)
    capsys.readouterr()
    assert command(["evaluate", *map(str, runs)]) == 0
    streams = capsys.readouterr()
    assert "40 examples of dev" in streams.out
    assert "there is no test split: dev is judged" in streams.err
    assert command(["evaluate", *map(str, runs), "--split", "test"]) == 2
    assert "there is no split 'test'; there are: train, dev" in capsys.readouterr().err


def test_a_published_language_model_is_judged_on_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_decoder(tmp_path / "model", "gpt2")
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    scores = langue.evaluate(model, data=str(text))
    # what the model itself gives each token of the text and its end, all in one piece
    loaded = langue.load(model)
    ids = loaded.tokenizer.backend.encode(TEXT, add_special_tokens=False).ids
    (logits,) = loaded.logits([[0, *ids]])
    shifted = logits - logits.max(1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    loss = -logarithms[np.arange(len(ids) + 1), [*ids, 0]].mean()
    assert scores["metrics"]["perplexity"] == pytest.approx(math.exp(loss), rel=2e-3)  # bf16
    assert any("pieces of at most 64 tokens" in note for note in scores["notes"])
    assert command(["evaluate", str(model)]) == 2
    assert "name text that it has not seen with --data" in capsys.readouterr().err
