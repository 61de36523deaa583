"""Runs and checkpoints that earlier versions wrote: each still loads, answers, is judged and goes
on as it was.

tests/old_runs/make.py made the archives, with the version whose name they bear.
"""

import json
import shutil
import tarfile
from pathlib import Path

import pytest

import langue

ARCHIVES = sorted((Path(__file__).parent / "old_runs").glob("*.tar.gz"))
FINISHED = ["classify", "multi-label", "regress", "causal"]
STOPPED = ["classify-stopped", "causal-stopped"]


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.gz"))
def unpacked(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(request.param) as packed:
        packed.extractall(folder, filter="data")
    return folder


@pytest.fixture
def old(unpacked, monkeypatch):
    """The folder in which the runs were made; their recipes name data and model from there."""
    monkeypatch.chdir(unpacked)
    return json.loads(Path("expected.json").read_text())


def _close(found, wanted):
    """Equal but for what another processor rounds otherwise; what is named today beside is not
    looked at."""
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            _close(found[key], value)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            _close(one, other)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-3, abs=1e-4)
    else:
        assert found == wanted


def _answers(run, texts):
    model = langue.load(run)
    return (
        model.predict(texts, top=None)
        if model.task is not None
        else model.generate(texts, max_tokens=8)
    )


@pytest.mark.parametrize("kind", FINISHED)
def test_a_finished_run_answers_and_is_judged_as_it_was(old, kind):
    _close(_answers(f"runs/{kind}", old["texts"]), old["runs"][kind]["answers"])
    _close(langue.evaluate(f"runs/{kind}")["metrics"], old["runs"][kind]["metrics"])


@pytest.mark.parametrize("kind", STOPPED)
def test_a_stopped_run_goes_on_to_the_end_that_it_would_have_had(old, kind, tmp_path):
    shutil.copytree(f"runs/{kind}", tmp_path / "run")
    verb = langue.pretrain if kind.startswith("causal") else langue.finetune
    run = verb(out=tmp_path / "run", resume=True)
    _close(run.metrics["metrics"], old["runs"][kind]["metrics"])
    _close(_answers(run.folder, old["texts"]), old["runs"][kind]["answers"])
    steps = [
        line["step"]
        for line in map(json.loads, (run.folder / "log.jsonl").read_text().splitlines())
    ]
    assert min(steps) < 24 < max(steps)  # what was done before is kept, and more was
