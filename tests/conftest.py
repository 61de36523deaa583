"""Fixtures of all tests: the real data sets, where this machine has them, and what makes small runs
cheap."""

import base64
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

# A PNG file of one white pixel.
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTmF7gAAAABJRU5ErkJggg=="
)

# A shell that starts the tests in the background has them ignore Ctrl-C, and every process that
# they start would ignore it too. The tests that interrupt a process need the default.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """`os.fsync` returns at once in this process; a bad descriptor still is an error.

    It protects against a loss of power, which no test simulates.
    """
    with patch.object(os, "fsync", os.fstat):
        yield


@pytest.fixture(scope="module", autouse=True)
def pictures_of_one_pixel(request: pytest.FixtureRequest) -> Iterator[None]:
    """Figures are composed but not rendered, which takes more than half of a small run.

    A module with `RENDERS = True` renders them: the tests of figures, and one of each verb that
    draws.
    """
    if getattr(request.module, "RENDERS", False):
        yield
        return
    from matplotlib.figure import Figure

    def save(figure: Figure, file: Any, **options: Any) -> None:
        if hasattr(file, "write"):
            file.write(PIXEL)
        else:
            Path(file).write_bytes(PIXEL)

    with patch.object(Figure, "savefig", save):
        yield
