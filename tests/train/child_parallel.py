"""One of several processes that train together, for tests.

A job is (folder, settings). Beside settings it may hold `stop` (the step after which the run is
interrupted), `die` ([process, step]: where the process kills itself) and `config` (axes of the
model). Runs resume where there is something to resume from.
"""

import faulthandler
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from langue.errors import AlreadyReported, Interrupted, LangueError
from langue.model.kernels import Dropout
from langue.model.transformer import set_dropout
from langue.runtime import rank
from langue.settings.sections import TrainSettings
from langue.train import muon
from langue.train.parallel import processes
from langue.train.state import save_weights
from tests.tiny import CONFIG
from tests.train.child import SETTINGS, trainer


def work(folder: Path, words: dict[str, Any]) -> None:
    """Train without dropout, since its masks depend on the process."""
    others = {"stop": 0, "die": (0, 0), "config": {}} | words
    chosen = SETTINGS.model_dump() | {"epochs": 1.2, "precision": "fp32", "evaluate_every": 6}
    chosen |= {name: word for name, word in words.items() if name not in ("stop", "die", "config")}
    stop = others["stop"]
    (doomed, last) = others["die"]
    axes = others["config"]
    run = trainer(folder, TrainSettings.model_validate(chosen), replace(CONFIG, **axes))
    set_dropout(run.model, 0.0, 0.0)
    assert all(part.probability == 0 for part in run.model.modules() if isinstance(part, Dropout))
    step = run._step

    def watched(batches: list[Any]) -> dict[str, Any]:
        if (doomed, last) == (rank(), run.progress.step + 1):
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        # the other processes must be told
        run.interrupted = run.progress.step + 1 == stop and rank() == 0
        return step(batches)

    run._step = watched  # type: ignore[method-assign]
    try:
        # the tests compare how the work is divided, not precisions
        with patch.object(muon, "has_bf16", return_value=False):
            run.run(resume=True)
    except Interrupted:
        assert stop
        return
    if rank() == 0:
        save_weights(folder, run.model)


def work_all(jobs: list[tuple[Path, dict[str, Any]]]) -> int:
    """Do the jobs as one of the processes that the environment names; the exit code."""
    torch.set_num_threads(1)
    faulthandler.enable()  # a process that is aborted says where it was
    try:
        with processes():
            for folder, words in jobs:
                work(folder, words)
    except LangueError as error:
        if not isinstance(error, AlreadyReported):
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0
