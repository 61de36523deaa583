"""Fixtures of all tests: the real data sets, where this machine has them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """`shared_data("imdb")`: the data set's folder under LANGUE_DATA, or a skip that says what is
    missing."""
    root = Path(os.environ.get("LANGUE_DATA", Path(__file__).parents[2] / "shared" / "data"))

    def folder(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(
                f"the data set {name} is not in {root} (set LANGUE_DATA to the folder that"
                " holds it)"
            )
        return root / name

    return folder
