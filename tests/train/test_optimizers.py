"""Muon beside PyTorch's own, schedules, the running average, and the guard against losses that
cannot be trusted."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from langue.errors import RunError
from langue.hub.weights import read_safetensors
from langue.model.language_model import LanguageModel
from langue.settings.sections import TrainSettings
from langue.train.journal import read_log
from langue.train.muon import Muon, orthogonalise
from langue.train.optimizer import EMA, factor, make_optimizer
from langue.train.trainer import check_loss
from tests.tiny import CONFIG
from tests.train.child import SETTINGS, trainer


@pytest.mark.parametrize("shape", [(16, 16), (48, 16), (16, 40)])
def test_orthogonalising_brings_all_singular_values_near_one(shape):
    generator = torch.Generator().manual_seed(0)
    found = orthogonalise(torch.randn(5, *shape, generator=generator))
    values = torch.linalg.svdvals(found)
    assert values.max() < 1.3 and values.min() > 0.3
    assert values.mean() == pytest.approx(0.95, abs=0.15)


def test_muon_takes_the_steps_of_pytorchs_own():
    """Which iterates in bf16: three digits."""
    generator = torch.Generator().manual_seed(1)
    begin = [torch.randn(24, 24, generator=generator), torch.randn(32, 24, generator=generator)]
    ours, theirs = ([nn.Parameter(w.clone()) for w in begin] for _ in range(2))
    mine = Muon([{"params": ours, "weight_decay": 0.1}], lr=0.02, momentum=0.95)
    reference = torch.optim.Muon(
        theirs, lr=0.02, momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(4):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        mine.step()
        reference.step()
    for a, b, w in zip(ours, theirs, begin, strict=True):
        moved = (b - w).detach()
        assert float((a - b).detach().norm() / moved.norm()) < 0.02


def test_stacked_queries_keys_and_values_are_orthogonalised_apart():
    generator = torch.Generator().manual_seed(2)
    gradient = torch.randn(24, 8, generator=generator)
    whole = nn.Parameter(torch.zeros(24, 8))
    parts = [nn.Parameter(torch.zeros(8, 8)) for _ in range(3)]
    whole.grad = gradient.clone()
    for part, each in zip(parts, gradient.split(8), strict=True):
        part.grad = each.clone()
    Muon([{"params": [whole], "parts": (8, 8, 8)}], lr=0.1).step()
    Muon([{"params": parts}], lr=0.1).step()
    torch.testing.assert_close(whole.detach(), torch.cat([part.detach() for part in parts]))


def test_muon_takes_the_matrices_of_the_blocks_and_nothing_else():
    model = trainer_model()
    optimizer = make_optimizer(model, TrainSettings(optimizer="muon"), 2)
    names = {weight: name for name, weight in model.named_parameters()}
    adam, muon = (
        {names[w] for g in part.param_groups for w in g["params"]} for part in optimizer.parts
    )
    assert adam | muon == set(names.values()) and not adam & muon
    assert all(
        ".blocks." in name and name.endswith("weight") and "norm" not in name for name in muon
    )
    assert len(muon) == 2 * 4


def test_muon_knows_which_matrices_are_stacked():
    config = replace(CONFIG, decoder_layers=1)
    model = LanguageModel(config)
    parts = make_optimizer(model, TrainSettings(optimizer="muon"), 1).parts
    names = {weight: name.rsplit("blocks.", 1)[-1] for name, weight in model.named_parameters()}
    stacked = {
        names[w]: len(g["parts"])
        for p in parts
        for g in p.param_groups
        for w in g["params"]
        if g.get("parts")
    }
    assert stacked["0.cross.kv.weight"] == 2 and stacked["0.attention.qkv.weight"] == 3
    assert not {name for name in stacked if "kv.weight" not in name}


def trainer_model():
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        return trainer(Path(folder)).model


def test_wsd_is_constant_and_then_falls():
    settings = TrainSettings(schedule="wsd", warmup=0.1, decay=0.2, min_lr_ratio=0.1)
    shape = [factor(step, 100, settings) for step in range(100)]
    assert shape[0] == pytest.approx(0.1) and shape[9:80] == pytest.approx([1.0] * 71)
    assert shape[90] == pytest.approx(0.55) and shape[99] == pytest.approx(0.1 + 0.9 * 0.05)


def test_the_average_follows_the_weights_and_is_put_in_and_out():
    model = nn.Linear(1, 1, bias=False)
    average = EMA(model, 0.9)
    expected = float(model.weight.detach())
    for number in range(1, 30):
        with torch.no_grad():
            model.weight.fill_(float(number))
        average.update(model)
        decay = min(0.9, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * number
    with average.applied(model):
        assert float(model.weight.detach()) == pytest.approx(expected, rel=1e-5)
    assert float(model.weight.detach()) == 29.0


def test_a_spike_is_told_from_noise():
    calm = list(2 + 0.05 * np.random.default_rng(0).standard_normal(100))
    assert check_loss(2.1, calm, 6.0) is None
    assert check_loss(9.0, calm, 0.0) is None
    assert "a spike" in (check_loss(9.0, calm, 6.0) or "")
    assert check_loss(9.0, calm[:10], 6.0) is None
    assert "nan" in (check_loss(math.nan, [], 0.0) or "")


def broken(run, at):
    """A training run in which the loss of one step is not a number."""
    forward = run.objective.forward
    calls = []

    def once(model, batch):
        outcome = forward(model, batch)
        calls.append(1)
        return type(outcome)(
            outcome.loss * (math.nan if len(calls) == at else 1.0), outcome.count, outcome.outputs
        )

    run.objective.forward = once
    return run


def test_a_loss_that_is_no_number_stops_with_its_batch_kept(tmp_path):
    with pytest.raises(
        RunError, match=r"step 2 is nan; its batch is kept in suspect-00000002.safetensors"
    ):
        broken(trainer(tmp_path, SETTINGS), 3).run()  # two batches a step
    kept = read_safetensors(tmp_path / "suspect-00000002.safetensors")
    assert kept["0.tokens"].shape[0] == kept["0.starts"][-1]


def test_or_is_skipped_and_the_weights_stay_whole(tmp_path):
    settings = SETTINGS.model_copy(update={"on_nonfinite": "skip", "max_steps": 5})
    run = broken(trainer(tmp_path, settings), 3)
    run.run()
    lines = [line for line in read_log(tmp_path / "log.jsonl") if line["split"] == "train"]
    assert [line.get("skipped", False) for line in lines] == [False, True, False, False, False]
    assert lines[1]["loss"] is None  # and not NaN, which is no JSON
    assert all(torch.isfinite(weight).all() for weight in run.model.parameters())
