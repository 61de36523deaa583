"""What arrives: a machine that others may use too. What leaves: how much they did, so that a round
can be judged."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STAT = Path("/proc/stat")
QUIET = 0.1  # share of the machine that others may take in a quiet moment


def _busy() -> float:
    """Seconds that all processes of the machine have computed since its start; 0 where that is not
    to be had."""
    if not STAT.is_file():
        return 0.0
    user, nice, system, _, _, irq, soft, steal, *_ = (
        int(x) for x in STAT.read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


@contextmanager
def others() -> Iterator[list[float]]:
    """Yields a list that afterwards holds the share of all cores that neither this process nor its
    children took."""
    share: list[float] = []
    began = time.perf_counter()
    busy = _busy()
    own = _own()
    yield share
    seconds = (time.perf_counter() - began) * (os.cpu_count() or 1)
    share.append(max(0.0, (_busy() - busy) - (_own() - own)) / seconds)


def wait_until_quiet(patience: float) -> None:
    """Return once others leave the machine alone for three seconds, or after `patience` seconds."""
    end = time.perf_counter() + patience
    while time.perf_counter() < end:
        with others() as share:
            time.sleep(min(3.0, patience))
        if share[0] < QUIET:
            return
