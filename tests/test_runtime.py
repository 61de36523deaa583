"""What is asked of the machine, in a process of its own."""

import os
import platform

import pytest
import torch

from langue.runtime import TRAINING_KERNELS, keep_kernels, peak_memory
from tests import forked

CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"

FAULTS = """
import resource, sys, torch
from langue.runtime import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("glibc does not do as it is asked")
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step = [torch.ones(2**24) for _ in range(3)]
    del step
before = faults()
for _ in range(8):
    step = [torch.ones(2**24) for _ in range(3)]
    del step
print(faults() - before)
"""


def faults(word: str) -> int:
    done = forked.run_script(FAULTS, word)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc",
    reason="keep_freed_memory does nothing, and says so, where there is no glibc",
)
def test_freed_memory_is_reused_without_page_faults():
    """Eight steps of 3 x 64 MiB are 393,216 pages, all new each time. Kept, none is requested
    again, except that glibc may still make room for a few tensors where small blocks lie between
    them (the addresses are random)."""
    assert faults("keep") < faults("leave") / 4


GIVEN = """
import torch
from langue.runtime import HeapTrimmer, keep_freed_memory, resident_memory
keep_freed_memory()
upkeep = HeapTrimmer()
def step(size):
    made = [torch.ones(size) for _ in range(32)]
    del made
    upkeep.maybe_trim()
for _ in range(upkeep.settled):
    step(2**18)
needed = resident_memory()
step(2**23)  # a gigabyte, freed at once: more than half of what any build of torch takes itself
print(needed, upkeep.steps, resident_memory())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is kept with glibc alone")
def test_memory_that_steps_no_longer_need_is_given_back():
    done = forked.run_script(GIVEN)
    assert done.returncode == 0, done.stderr
    needed, steps, held = map(int, done.stdout.split())
    assert steps == 0 and held < needed + 2**24


CORES = """
import os, threading, torch
from langue.runtime import parallel_map
torch.set_num_threads(3)
meet = threading.Barrier(3, timeout=60)
def work(item):
    if item in ("a", "b", "c"):
        meet.wait()  # which each of them can only where the others are in threads of their own
    if item == "bad":
        raise ValueError(item)
    return item, torch.get_num_threads(), threading.get_ident()
def told():
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start(); thread.join()
    return found[0]
items = ["a", "b", "c", *range(200)]
done = list(parallel_map(work, items))
assert [item for item, _, _ in done] == items
assert {threads for _, threads, _ in done} == {1} and len({thread for _, _, thread in done}) == 3
try:
    list(parallel_map(work, [1, "bad", *range(100)]))
except ValueError:
    print("raised")
assert torch.get_num_threads() == told() == 3
child = os.fork()
if not child:
    os._exit(0 if len(list(parallel_map(work, range(9)))) == 9 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print("done")
"""


def test_every_core_works_at_items_of_its_own_and_torch_has_its_threads_afterwards():
    done = forked.run_script(CORES)
    assert done.stdout.split() == ["raised", "done"], done.stderr


@pytest.mark.parametrize(("own", "kept"), [(None, "4096"), ("77", "77")])
def test_kernels_are_kept_unless_the_environment_says_how_many(own, kept, monkeypatch):
    monkeypatch.delenv(CAPACITY, raising=False)
    if own is not None:
        monkeypatch.setenv(CAPACITY, own)
    keep_kernels(TRAINING_KERNELS)
    assert os.environ.pop(CAPACITY) == kept


def test_a_training_says_so_before_its_first_product(monkeypatch):
    """That of the estimate of its time: said later, it is not heard."""
    from langue import hardware

    monkeypatch.delenv(CAPACITY, raising=False)
    monkeypatch.setattr(
        hardware.torch, "randn", lambda *_, **__: pytest.fail(os.environ.pop(CAPACITY, "not said"))
    )
    with pytest.raises(pytest.fail.Exception, match="^4096$"):
        hardware.matmul_rate(hardware.torch.float32)


def test_memory_in_use_is_the_gpus_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", {torch.device("cuda:1"): 5}.get)
    monkeypatch.setenv("LANGUE_DEVICE", "cuda:1")
    assert peak_memory() == 5
    monkeypatch.setenv("LANGUE_DEVICE", "cpu")
    assert peak_memory() > 2**20


def test_a_gpu_is_timed_at_a_product_that_takes_it_longer_than_to_begin(monkeypatch):
    from langue import hardware

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LANGUE_DEVICE", "cuda:0")
    monkeypatch.setattr(
        hardware.torch, "randn", lambda *shape, **_: pytest.fail(f"{shape[0] * shape[1]}")
    )
    with pytest.raises(pytest.fail.Exception, match=f"^{2**26}$"):
        hardware.matmul_rate(hardware.torch.bfloat16)
