"""The main job on real input: published weights, real reviews, a real process that is killed.
Minutes, not seconds."""

import os
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from langue.verbs.finetune import finetune
from langue.verbs.quickstart import embedded_model
from tests.tiny import write_jsonl

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sst2(shared_data, tmp_path_factory):
    """2,000 sentences of SST-2 to learn from, all 872 of dev to be judged on."""
    import gzip
    import json

    folder = tmp_path_factory.mktemp("sst2")
    for ours, theirs, most in (("train", "train", 2000), ("test", "dev", None)):
        with gzip.open(
            shared_data("sst2") / f"{theirs}.jsonl.gz", "rt", encoding="utf-8"
        ) as handle:
            write_jsonl(folder / f"{ours}.jsonl", [json.loads(line) for line in handle][:most])
    return folder


def test_minilm_beats_the_bag_of_words_on_sst2(sst2, tmp_path):
    run = finetune(
        model=embedded_model(),
        data=sst2,
        out=tmp_path / "run",
        **{"train.epochs": 1, "train.lr": 2e-4},
    )
    accuracy = run.metrics["metrics"]["accuracy"]
    assert accuracy > run.metrics["baseline"]["metrics"]["accuracy"] + 0.03
    assert accuracy > 0.80
    shown = run.load().predict(["A warm, funny, engaging film.", "A dull and lifeless mess."])
    assert [each["label"] for each in shown] == ["positive", "negative"]


def test_the_command_killed_and_resumed_ends_with_the_same_bits(sst2, tmp_path):
    def command(out, *more):
        words = [
            "finetune",
            "--model",
            str(embedded_model()),
            "--data",
            str(sst2),
            "--out",
            str(tmp_path / out),
        ]
        settings = [
            "train.max_steps=8",
            "train.checkpoint_every=2",
            "data.max_length=32",
            "data.duplicates=false",
        ]
        return [sys.executable, "-m", "langue", *words, *more, *settings]

    quiet = {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "env": {**os.environ, "OMP_NUM_THREADS": "1"},
    }
    subprocess.run(command("whole"), check=True, timeout=600, **quiet)
    child = subprocess.Popen(command("killed"), **quiet)
    log = tmp_path / "killed" / "log.jsonl"
    while child.poll() is None and not (log.exists() and log.read_text().count('"train"') >= 5):
        time.sleep(0.01)
    assert child.poll() is None, "the run ended before it could be killed"
    child.send_signal(signal.SIGKILL)
    child.wait()
    subprocess.run(command("killed", "--resume"), check=True, timeout=600, **quiet)
    first, second = (
        load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed")
    )
    assert all((first[name] == second[name]).all() for name in first)
