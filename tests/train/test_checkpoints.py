"""What of a run is on disk, and when: whatever happens next, it can be gone on from."""

import json
import time
from dataclasses import asdict, replace

import pytest
import torch
import torch.distributed as dist

from langue.errors import RunError
from langue.train import sharding
from langue.train.journal import Journal, read_log
from langue.train.state import save_best, save_state
from langue.train.trainer import Progress
from tests.tiny import CONFIG
from tests.train.child import SETTINGS, trainer


def kept(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_checkpoint_that_was_waited_for_is_there(group, tmp_path, monkeypatch):
    """PyTorch tells that its files are written before it tells whoever is to complete the
    folder."""
    complete = sharding.complete_folder
    monkeypatch.setattr(
        sharding, "complete_folder", lambda *paths: (time.sleep(0.2), complete(*paths))
    )
    writer = sharding.Writer()
    for step in range(3):
        path = tmp_path / f"step-{step}"
        writer.start(path, {"weight.a": torch.randn(5, 3)}, {"step": step}, lambda: None)
        writer.wait()
        assert json.loads((path / "state.json").read_text()) == {"step": step}


def test_what_fails_after_the_files_are_written_is_said(group, tmp_path, monkeypatch):
    def fails(*_):
        raise RunError("no room")

    monkeypatch.setattr(sharding, "complete_folder", fails)
    writer = sharding.Writer()
    writer.start(tmp_path / "step-1", {"weight.a": torch.randn(5, 3)}, {}, lambda: None)
    with pytest.raises(RunError, match="no room"):
        writer.wait()


def test_the_best_weights_that_the_newest_checkpoint_names_stay(tmp_path):
    """A run that goes on from it may find none better: on a GPU, or with another number of
    processes."""
    run = trainer(tmp_path)
    folder = tmp_path / "checkpoints"
    at = Progress(step=7, best=0.5, best_step=5)
    save_best(folder, run.model, 5, {})
    save_state(folder, run.model, run.optimizer, asdict(at), {})
    save_best(folder, run.model, 10, {})
    assert kept(folder) == ["best-00000005", "best-00000010", "step-00000007"]
    save_best(folder, run.model, 12, {})
    assert kept(folder) == ["best-00000005", "best-00000012", "step-00000007"]
    save_state(folder, run.model, run.optimizer, asdict(replace(at, step=14, best_step=12)), {})
    assert kept(folder) == ["best-00000012", "step-00000014"]


@pytest.mark.parametrize(
    "content", ["[]", "3", '{"format": 3}', '{"format": 3, "step": 2, "later": 1}']
)
def test_what_is_no_state_of_a_run_is_said(tmp_path, content):
    run = trainer(tmp_path)
    path = save_state(
        tmp_path / "checkpoints", run.model, run.optimizer, asdict(Progress(step=2)), {}
    )
    said = json.loads((path / "state.json").read_text())
    found = json.loads(content)
    (path / "state.json").write_text(json.dumps(said | found if "later" in content else found))
    with pytest.raises(RunError, match="resume it with the version of langue that wrote it"):
        trainer(tmp_path).run(resume=True)


def test_a_line_of_the_log_that_was_cut_short_goes(tmp_path):
    log = tmp_path / "log.jsonl"
    lines = [json.dumps({"split": "train", "step": step}) + "\n" for step in range(3)]
    log.write_text("".join(lines)[:-4])
    with Journal(log, 5, 3, len("".join(lines))) as journal:
        journal.write({"split": "train", "step": 3})
    assert [line["step"] for line in read_log(log)] == [0, 1, 3]


def test_a_dev_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    run = trainer(tmp_path)
    monkeypatch.setattr(
        run.objective, "apply", lambda *_, **__: (torch.zeros(24, 2).numpy(), float("nan"))
    )
    with pytest.raises(RunError, match=r"the dev loss at step 4 is nan.*lower train.lr"):
        run.run()
    assert not list((tmp_path / "checkpoints").glob("best-*"))


def test_the_last_layer_of_the_deeper_side_has_the_whole_rate(tmp_path):
    config = replace(CONFIG, n_layers=1, decoder_layers=3)
    run = trainer(tmp_path, SETTINGS.model_copy(update={"layer_decay": 0.5}), config)
    assert max(group["scale"] for part in run.optimizer.parts for group in part.param_groups) == 1.0
