"""Fixtures for all tests: the real data sets, if this machine has them, and patches that make small
runs cheap."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cheap import not_rendering, not_waiting_for_the_disk

# The files that take longest, from a quarter of a minute up. They are started first, so that no
# process is left alone with one of them at the end.
LONG = (
    "contract/test_families.py",
    "test_readme.py",
    "faults/test_remedies_of_commands.py",
    "train/test_parallel.py",
    "contract/test_tasks.py",
    "verbs/test_pretrain.py",
    "parity/test_peft.py",
    "contract/test_elsewhere.py",
    "cli/test_torchrun.py",
    "runs/test_tune.py",
    "serve/test_page_chat.py",
    "contract/test_objectives.py",
    "test_estimators.py",
    "serve/test_safety.py",
    "model/kernels/test_native.py",
    "generation/test_constrain.py",
    "verbs/test_quickstart_data.py",
    "serve/test_ending.py",
)
# A shell that starts the tests in the background makes them ignore Ctrl-C, which every process that
# they start inherits. The tests that interrupt a process need the default handler.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the files of LONG first; pytest-xdist keeps this order with --no-loadscope-reorder."""
    folder = Path(__file__).parent
    order = {folder / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path, len(LONG)))


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Return a function such that `shared_data("imdb")` is the data set's folder under LANGUE_DATA,
    or a skip that says what is missing."""
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
    """Make `os.fsync` return immediately in this process; tests/forked.py does so in its own."""
    with not_waiting_for_the_disk():
        yield


@pytest.fixture(scope="module", autouse=True)
def pictures_of_one_pixel(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compose figures without rendering them, which takes more than half the time of a small run.

    Modules with `RENDERS = True` render them, as the tests of figures do, and so does `rendering`
    of tests/cheap.py, in one run of each verb that draws.
    """
    if getattr(request.module, "RENDERS", False):
        yield
        return
    with not_rendering():
        yield
