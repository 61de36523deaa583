"""A slow `langue predict` in a process of its own, for tests that stop it."""

import time
from pathlib import Path
from typing import Any

from langue.cli import run
from langue.runs import predict_table
from langue.runs.predictions import Predictions


def predict_slowly(words: list[str], counter: Path) -> int:
    """Predict eight rows at a time, with a pause after each eight; `counter` then holds how many
    rows are written."""
    predict_table.FIRST = predict_table.CHUNK = 8
    add = Predictions.add

    def add_slowly(predictions: Predictions, lines: Any) -> None:
        add(predictions, lines)
        counter.write_text(str(predictions.done))
        time.sleep(0.3)

    Predictions.add = add_slowly  # type: ignore[method-assign]
    return run(words)
