"""Fixtures of all tests: the real data sets, where this machine has them, and what makes small runs
cheap."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cheap import not_rendering, not_waiting_for_the_disk

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
    """Nothing waits for the disk in this process; tests/forked.py has its own do the same."""
    with not_waiting_for_the_disk():
        yield


@pytest.fixture(scope="module", autouse=True)
def pictures_of_one_pixel(request: pytest.FixtureRequest) -> Iterator[None]:
    """Figures are not rendered, but in a module with `RENDERS = True`, as the tests of figures are,
    and within `rendering` of tests/cheap.py, in one run of each verb that draws.
    """
    if getattr(request.module, "RENDERS", False):
        yield
        return
    with not_rendering():
        yield
