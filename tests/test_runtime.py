"""What is asked of the machine, in a process of its own."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from langue.runtime import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("not glibc")
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step = [torch.ones(2**24) for _ in range(3)]
    del step
before = faults()
for _ in range(20):
    step = [torch.ones(2**24) for _ in range(3)]
    del step
print(faults() - before)
"""


def faults(word: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, word], capture_output=True, text=True, check=False)
    if "not glibc" in done.stderr:
        pytest.skip("the C library is not glibc, for which keep_freed_memory says that it does nothing")
    return int(done.stdout)


def test_freed_memory_is_used_again_without_asking_the_system():
    """Twenty steps of 3 x 64 MiB are 983,040 pages, all new each time. Kept, none is asked for again: but where small
    blocks lie between the tensors (the addresses are random), glibc may yet make room for a few more of them."""
    assert faults("keep") < faults("leave") / 4
