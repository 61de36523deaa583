"""All that langue does is done on the model's device and nowhere else, and with the same
results."""

import json
import subprocess
import sys

import numpy as np
import pytest

from langue.hub.families.registry import FAMILIES

pytest.importorskip("transformers")

from tests import forked  # noqa: E402
from tests.contract.test_families import saved  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("device")
    for name in FAMILIES:
        saved(where / "families" / name, name, 0)
    return where


def run(device, precision, folder):
    command = [sys.executable, "-m", "tests.child_device", device, precision, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 3e-2)])
def test_another_device_gives_what_a_processor_gives(folder, precision, tolerance):
    here, there = (run(device, precision, folder) for device in ("cpu", "pretend"))
    assert list(here) == list(there) and there["resumed"] is True
    for name, expected in here.items():
        found = there[name]
        if isinstance(expected, list) and isinstance(expected[0], float):
            off = np.linalg.norm(np.subtract(found, expected)) / np.linalg.norm(expected)
            assert off < tolerance, name
        elif isinstance(expected, float):
            assert found == pytest.approx(expected, rel=tolerance), name
        elif precision == "fp32":  # tokens
            assert found == expected, name


def test_the_device_refuses_what_is_not_on_it():
    """Else the test above could not fail."""
    said = (
        "import torch; from tests.other_device import register; register(); x = torch.ones(2,"
        " device='pretend');print((x + x).tolist()); x + torch.ones(2)"
    )
    done = forked.run_script(said)
    assert "[2.0, 2.0]" in done.stdout and "tensors of two devices, pretend and cpu" in done.stderr


WAITS = """
import os, sys
from pathlib import Path
import numpy as np, torch
from tests.other_device import NAME, There, register
register()
os.environ["LANGUE_DEVICE"] = NAME
from langue.data.batch import Examples, gather_pairs
from langue.model.config import ModelConfig
from langue.model.layers import Mixture
from tests.train.child import SETTINGS, trainer

def told(work):
    before = There.waits
    work()
    print(There.waits - before)

run = trainer(Path(sys.argv[1]), SETTINGS)
assert run.settings.accumulate == 2
batches = run.loader.iterate(0, run.total, run.device)
told(lambda: [run._step(next(batches)[1]) for _ in range(3)])
sizes = dict(vocab_size=9, dim=8, n_layers=1, n_heads=2, ffn_dim=8, max_length=9)
sizes |= dict(n_experts=6, experts_per_token=2)
experts, states = Mixture(ModelConfig(**sizes)).to(NAME), torch.randn(20, 8, device=NAME)
told(lambda: experts(states))
some = Examples(np.arange(6, dtype=np.int32), np.array([0, 2, 6]), None, np.zeros(2, np.int32))
told(lambda: gather_pairs(some, some, np.arange(2), torch.device(NAME)))
"""


def test_a_step_waits_for_the_device_no_more_often_than_it_must(tmp_path):
    """For the losses of all its batches, the norm, and what the metric is of; a layer of experts
    for their shares."""
    done = forked.run_script(WAITS, str(tmp_path))
    assert done.stdout.split() == ["12", "1", "0"], done.stderr[-1500:]
