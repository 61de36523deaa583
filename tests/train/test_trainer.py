"""The loop's promises: accumulation is exact, answers do not depend on company, bad losses stop
it."""

import json
import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from langue.data.batch import gather
from langue.errors import DataError, Interrupted, RunError
from langue.settings.sections import TrainSettings
from langue.tasks.classify import Classify
from langue.tasks.regress import Regress
from langue.train.optimizer import depth, factor, make_optimizer
from langue.train.state import load_state
from tests.tiny import CONFIG
from tests.train.child import SETTINGS, examples, trainer


def gradients(model, task, batches):
    model.zero_grad()
    total = 0.0
    count = 0.0
    for batch in batches:
        loss, number = task.loss(model(batch), batch)
        loss.backward()
        total = total + float(loss)
        count = count + number
    return total / count, {n: w.grad / count for n, w in model.named_parameters()}


@pytest.mark.parametrize(
    "task",
    [
        Classify(["a", "b"], Classify.Options(label_smoothing=0.1)),
        Classify(["a", "b"], Classify.Options(), weights=[0.3, 2.0]),
        Classify(["a", "b"], Classify.Options(label_smoothing=0.2), weights=[0.3, 2.0]),
        Classify(["a", "b", "c"], Classify.Options(multi_label=True, label_smoothing=0.1)),
        Classify(
            ["a", "b", "c"],
            Classify.Options(multi_label=True, label_smoothing=0.1),
            weights=[0.3, 2.0, 9.0],
        ),
        Regress(Regress.Options(pooling="first")),
    ],
    ids=["smoothed", "weighted", "both", "multi-label", "multi-label weighted", "regress"],
)
def test_eight_small_batches_give_the_gradients_of_one_big_one(task):
    data = examples(40, 3)
    random = np.random.default_rng(0)
    if task.n_outputs == 3:
        data = data.with_targets(random.integers(0, 2, (40, 3)).astype(np.float32))
    elif task.n_outputs == 1:
        data = data.with_targets(random.normal(size=40).astype(np.float32))
    model = task.network(CONFIG, seed=0).double().eval()
    if task.n_outputs != 2:
        data = data.with_targets(data.targets.astype(np.float64))
    small = [gather(data, np.arange(i, i + 5)) for i in range(0, 40, 5)]
    loss_big, big = gradients(model, task, [gather(data, np.arange(40))])
    loss_small, many = gradients(model, task, small)
    assert loss_small == pytest.approx(loss_big, rel=1e-5)
    for name in big:
        assert float((many[name] - big[name]).norm()) <= 1e-5 * float(big[name].norm()) + 1e-9, name


def test_accumulated_training_is_training_on_big_batches(tmp_path):
    """The trainer's own path: one step of 2 x 6 examples moves the weights as one step of 12."""
    moved = []
    for name, accumulate, most in (("a", 2, 6), ("b", 1, 12)):
        sizes = {"accumulate": accumulate, "batch_examples": most, "batch_tokens": 4096}
        settings = SETTINGS.model_copy(update=sizes | {"precision": "fp32"})
        run = trainer(tmp_path / name, settings)
        for part in run.model.modules():  # different batches draw different masks
            if hasattr(part, "probability"):
                part.probability = 0.0
        for block in run.model.body.blocks:
            block.attention.dropout = 0.0
        rows = np.arange(12)
        batches = [gather(run.loader.source.examples, part) for part in np.split(rows, accumulate)]
        run._step(batches)
        moved.append(
            {name: weight.detach().clone() for name, weight in run.model.named_parameters()}
        )
    for name in moved[0]:
        torch.testing.assert_close(moved[0][name], moved[1][name], rtol=1e-4, atol=2e-5)


def test_a_text_gets_the_same_answer_alone_in_a_batch_and_in_any_order():
    task = Classify(["a", "b"], Classify.Options())
    model = task.network(CONFIG, seed=0).eval()
    data = examples(30, 9)
    with torch.no_grad():
        alone = torch.cat([model(gather(data, np.asarray([i]))) for i in range(30)])
        for order in (np.arange(30), np.random.default_rng(1).permutation(30)):
            batch = gather(data, order)
            torch.testing.assert_close(model(batch), alone[batch.rows], rtol=0, atol=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    run = trainer(tmp_path)
    run.model.head.out.bias.data.fill_(float("nan"))
    with pytest.raises(RunError, match=r"loss at step 1 is nan.*lower train.lr"):
        run.run()


def test_a_batch_in_which_nothing_carries_loss_is_an_error(tmp_path, monkeypatch):
    run = trainer(tmp_path)
    monkeypatch.setattr(run.objective, "loss", lambda outputs, targets: (outputs.sum() * 0, 0.0))
    with pytest.raises(DataError, match="nothing in the batch of step 1 carries loss"):
        run.run()


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    run = trainer(tmp_path)

    def press():
        while run.progress.step < 3:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(Interrupted, match="--resume"):
        run.run()
    thread.join()
    again = trainer(tmp_path)
    done = again.run(resume=True)
    assert done.step == again.total
    steps = [
        json.loads(line)["step"]
        for line in (tmp_path / "log.jsonl").read_text().splitlines()
        if '"train"' in line
    ]
    assert steps == list(range(1, again.total + 1))


def test_a_checkpoint_of_another_model_or_optimiser_is_refused(tmp_path):
    settings = SETTINGS.model_copy(update={"max_steps": 2, "evaluate_every": 9})
    run = trainer(tmp_path, settings)
    run.run()
    (checkpoint,) = (tmp_path / "checkpoints").glob("step-*")
    wider = Classify(["a", "b"], Classify.Options()).network(replace(CONFIG, ffn_dim=64))
    deeper = Classify(["a", "b"], Classify.Options()).network(replace(CONFIG, n_layers=3))
    for other in (wider, deeper):
        with pytest.raises(
            RunError,
            match="(missing|has shape).*; it is of another model .* put the run's own back",
        ):
            load_state(checkpoint, other, make_optimizer(other, settings, 2), {})
    for change, said in (
        ({"optimizer": "muon"}, "is of another optimiser"),
        ({"ema": 0.9}, "no fitting average"),
    ):
        changed = trainer(tmp_path, settings.model_copy(update=change))
        with pytest.raises(RunError, match=f"{said}.*; it is of another model or optimiser"):
            changed.run(resume=True)


def test_patience_stops_early_and_the_best_weights_are_kept(tmp_path, capsys):
    settings = SETTINGS.model_copy(
        update={"patience": 2, "evaluate_every": 1, "epochs": 20.0, "lr": 1e-2}
    )
    run = trainer(tmp_path, settings)
    progress = run.run()
    assert progress.stopped and progress.step < run.total
    assert f"none better than step {progress.best_step} since" in " ".join(
        capsys.readouterr().err.split()
    )
    assert (
        tmp_path / "checkpoints" / f"best-{progress.best_step:08d}" / "model.safetensors"
    ).is_file()


def test_schedules():
    shape = [factor(step, 10, TrainSettings(schedule="linear", warmup=0.2)) for step in range(10)]
    assert shape == pytest.approx([0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    assert [
        factor(step, 10, TrainSettings(schedule="cosine", warmup=0.0)) for step in (0, 5, 10)
    ] == pytest.approx([1, 0.5, 0])
    assert [
        factor(step, 10, TrainSettings(schedule="constant", warmup=0.1)) for step in (0, 1, 9)
    ] == [1, 1, 1]


def test_layer_decay_and_weight_decay_reach_the_right_weights():
    model = Classify(["a", "b"], Classify.Options()).network(CONFIG)
    optimizer = make_optimizer(model, TrainSettings(layer_decay=0.5), CONFIG.n_layers)
    groups = {id(w): group for group in optimizer.parts[0].param_groups for w in group["params"]}
    for name, weight in model.named_parameters():
        group = groups[id(weight)]
        assert group["scale"] == 0.5 ** (CONFIG.n_layers + 1 - depth(name, CONFIG.n_layers))
        assert (group["weight_decay"] > 0) == (weight.ndim >= 2)
    names = ("body.token.weight", "body.blocks.1.attention.qkv.weight", "head.out.weight")
    assert [depth(name, 2) for name in names] == [0, 2, 3]
    # What ELECTRA and T5 have before their blocks.
    assert [
        depth(f"body.{name}", 2) for name in ("widen.weight", "widen.bias", "bias.table.weight")
    ] == [0, 0, 0]
