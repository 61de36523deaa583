"""The numbers of log.jsonl in TensorBoard's own files, and a clear line where the library is not
there."""

import sys

import pytest

from langue.errors import SettingsError
from langue.train.journal import read_log
from tests.train.child import SETTINGS, trainer


def test_tensorboard_reads_what_the_log_holds(tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    settings = SETTINGS.model_copy(update={"tracker": "tensorboard", "max_steps": 6})
    trainer(tmp_path, settings).run()
    found = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for split in ("train", "dev"):
        lines = {
            line["step"]: line["loss"]
            for line in read_log(tmp_path / "log.jsonl")
            if line["split"] == split
        }
        seen = {event.step: event.value for event in found.Scalars(f"{split}/loss")}
        assert seen == pytest.approx(lines, rel=1e-6) and seen


@pytest.mark.parametrize(
    ("kind", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")]
)
def test_a_tracker_that_is_not_installed_is_said(tmp_path, monkeypatch, kind, module):
    monkeypatch.setitem(sys.modules, module, None)
    settings = SETTINGS.model_copy(update={"tracker": kind})
    with pytest.raises(SettingsError, match=f"train.tracker = {kind}"):
        trainer(tmp_path, settings).run()
