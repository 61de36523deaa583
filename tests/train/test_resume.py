"""A run that is killed at any moment and resumed equals, bit for bit, a run that was not killed."""

import json
import random
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests import forked
from tests.train.child import train, trainer


def finish(folder: Path) -> None:
    assert forked.wait(forked.start(train, folder)) == 0


def log(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def kill_when(child: BaseProcess, reached: Callable[[], bool]) -> bool:
    """Send SIGKILL to the child as soon as `reached()`; False if the child ended before."""
    deadline = time.monotonic() + 120
    while child.is_alive() and time.monotonic() < deadline:
        if reached():
            child.kill()
            return forked.wait(child) != 0
        time.sleep(0.0005)
    assert forked.wait(child, 0) == 0
    return False


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    finish(folder)
    return folder


def assert_same(folder: Path, whole: Path) -> None:
    ours, expected = (load_file(f / "done" / "model.safetensors") for f in (folder, whole))
    assert ours.keys() == expected.keys()
    assert all((ours[name] == expected[name]).all() for name in ours)
    assert log(folder) == log(whole)


def steps_logged(folder: Path) -> int:
    file = folder / "log.jsonl"
    return file.read_text().count('"train"') if file.exists() else 0


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_steps(tmp_path, whole, seed):
    draw = random.Random(seed)
    last = steps_logged(whole)
    killed = 0
    for step in sorted(draw.sample(range(1, last), 2)):
        child = forked.start(train, tmp_path)
        killed += kill_when(child, lambda step=step: steps_logged(tmp_path) >= step)
    assert killed
    finish(tmp_path)
    assert_same(tmp_path, whole)


@pytest.mark.parametrize("what", [".step-*", ".best-*"])
def test_killed_in_mid_write(tmp_path, whole, what):
    child = forked.start(train, tmp_path)
    checkpoints = tmp_path / "checkpoints"
    killed = kill_when(
        child, lambda: len(list(checkpoints.glob("step-*"))) > 0 and any(checkpoints.glob(what))
    )
    finish(tmp_path)
    # The write may win the race: then the kill came at a random point, or after the end.
    if killed:
        assert not [
            path for path in checkpoints.glob("step-*") if not (path / "state.json").is_file()
        ]
    assert_same(tmp_path, whole)


def test_killed_at_the_end_of_an_epoch(tmp_path, whole):
    last = len(trainer(tmp_path / "unused").loader.steps(0))
    child = forked.start(train, tmp_path)
    kill_when(child, lambda: steps_logged(tmp_path) >= last)
    finish(tmp_path)
    assert_same(tmp_path, whole)


def test_resuming_a_finished_run_changes_nothing(tmp_path, whole):
    before = load_file(whole / "done" / "model.safetensors")
    lines = log(whole)
    finish(whole)
    after = load_file(whole / "done" / "model.safetensors")
    assert all((before[name] == after[name]).all() for name in before) and log(whole) == lines


def test_state_is_safetensors_and_json_only(whole):
    kinds = {path.suffix for path in (whole / "checkpoints").rglob("*") if path.is_file()}
    assert kinds == {".safetensors", ".json"}
