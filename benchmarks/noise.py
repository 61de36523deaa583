"""Measure how much other processes use this machine, to judge whether a round is valid."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STAT = Path("/proc/stat")
QUIET = 0.1  # fraction of the machine that others may use in a quiet moment


def _busy() -> float:
    """Return the CPU seconds of all processes since the start of the machine; 0 if they are
    unavailable.
    """
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
    """Yield a list that afterwards contains the fraction of all cores used by other processes than
    this one and its children.
    """
    share: list[float] = []
    began = time.perf_counter()
    busy = _busy()
    own = _own()
    yield share
    seconds = (time.perf_counter() - began) * (os.cpu_count() or 1)
    share.append(max(0.0, (_busy() - busy) - (_own() - own)) / seconds)


def wait_until_quiet(patience: float) -> None:
    """Return once the machine has been quiet for three seconds, or after `patience` seconds."""
    end = time.perf_counter() + patience
    while time.perf_counter() < end:
        with others() as share:
            time.sleep(min(3.0, patience))
        if share[0] < QUIET:
            return
