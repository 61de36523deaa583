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
for _ in range(3):
    step = [torch.ones(2**24) for _ in range(3)]
    del step
before = faults()
for _ in range(5):
    step = [torch.ones(2**24) for _ in range(3)]
    del step
print(faults() - before)
"""


def faults(word: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, word], capture_output=True, text=True, check=False)
    if "not glibc" in done.stderr:
        pytest.skip("the C library is not glibc")
    return int(done.stdout)


def test_freed_memory_is_used_again_without_asking_the_system():
    """Five steps of 3 x 64 MiB are 245,760 pages; kept, at most one tensor's are new."""
    assert faults("leave") > 200_000 > 20_000 > faults("keep")
