"""Two real processes train as one does, read its checkpoints, write checkpoints that it reads, and
end together."""

import contextlib
import itertools
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from langue.errors import RunError, SettingsError
from langue.train import sharding
from langue.train.sharding import read_shards
from langue.train.tensor_parallel import check
from tests import forked
from tests.tiny import CONFIG
from tests.train.child import trainer
from tests.train.child_parallel import work, work_all

DIVIDING = ("ddp", "fsdp")  # each process takes a part of the batch
KINDS = (*DIVIDING, "tp")
LLAMA = {
    "position": "rotary",
    "kv_heads": 2,
    "gated": True,
    "bias": False,
    "norm": "rms",
    "norm_place": "pre",
}


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_close(folder: Path, other: Path, tolerance: float = 1e-5) -> None:
    ours = log(folder)
    theirs = log(other)
    assert len(ours) == len(theirs) >= 12
    for a, b in zip(ours, theirs, strict=True):
        assert {k: a[k] for k in ("split", "step", "examples", "tokens")} == {
            k: b[k] for k in ("split", "step", "examples", "tokens")
        }
        assert a["loss"] == pytest.approx(b["loss"], abs=tolerance), (a, b)
        assert a.get("grad_norm", 0) == pytest.approx(b.get("grad_norm", 0), rel=1e-3)
    if (other / "model.safetensors").exists():
        weights = load_file(other / "model.safetensors")
        for name, weight in load_file(folder / "model.safetensors").items():
            torch.testing.assert_close(weight, weights[name], rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """The runs of one process, and those of two processes that do all of their jobs in turn."""
    base = tmp_path_factory.mktemp("runs")
    work(base / "one", {"ema": 0.9})
    work(base / "one-muon", {"optimizer": "muon"})
    jobs: list[tuple[Path, dict[str, Any]]] = []
    for kind in KINDS:
        work(base / f"one-to-{kind}", {"ema": 0.9, "stop": 5, "parallel": kind})
        words = {"ema": 0.9, "parallel": kind}
        jobs += [
            (base / kind, words),
            (base / f"{kind}-muon", {"optimizer": "muon", "parallel": kind}),
            (base / f"{kind}-to-one", words | {"stop": 5}),
            (base / f"{kind}-to-{kind}", words | {"stop": 5}),
            (base / f"{kind}-to-{kind}", words),
            (base / f"one-to-{kind}", words),
        ]
    # 120 examples are 17 batches of 7 and one of a single example, which two processes cannot
    # divide.
    short = {"batch_tokens": 512, "batch_examples": 7}
    work(base / "one-short", dict(short))
    jobs += [(base / f"{kind}-short", short | {"parallel": kind}) for kind in DIVIDING]
    llama = {"optimizer": "muon", "activation_checkpointing": True, "config": LLAMA}
    work(base / "one-llama", dict(llama))
    jobs.append((base / "tp-llama", llama | {"parallel": "tp"}))
    jobs.append((base / "tp-from-fsdp", {"ema": 0.9, "parallel": "fsdp", "stop": 5}))
    jobs.append((base / "tp-from-fsdp", {"ema": 0.9, "parallel": "tp"}))
    jobs.append(
        (
            base / "fsdp-recompute",
            {"ema": 0.9, "parallel": "fsdp", "activation_checkpointing": True},
        )
    )
    jobs.append((base / "too-many", {"batch_examples": 1}))
    children = forked.start_group(work_all, jobs, outputs=base)
    ends = forked.wait_group(children, base, 480)
    # the last job is refused
    assert [code for code, _ in ends] == [2, 2], "\n".join(text for _, text in ends)
    (base / "said.txt").write_text("".join(text for _, text in ends))
    return base


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_as_one(runs, kind):
    """Losses, counts and gradient norms of each step, through accumulation, smoothing, clipping and
    averaging."""
    assert_close(runs / kind, runs / "one")


@pytest.mark.parametrize("kind", DIVIDING)
def test_a_last_batch_with_fewer_sequences_than_processes_counts_once(runs, kind):
    examples = [
        0,
        *(line["examples"] for line in log(runs / "one-short") if line["split"] == "train"),
    ]
    assert 8 in {b - a for a, b in itertools.pairwise(examples)}  # 7 and the one
    assert_close(runs / f"{kind}-short", runs / "one-short")


def test_grouped_query_heads_stay_with_their_keys(runs):
    assert_close(runs / "tp-llama", runs / "one-llama")


def test_an_fsdp_checkpoint_resumes_with_tensor_parallelism(runs):
    assert_close(runs / "tp-from-fsdp", runs / "one")


@pytest.mark.parametrize(
    ("axes", "processes", "said"),
    [
        ({}, 3, "n_heads = 4 does not divide among 3 processes"),
        ({"kv_heads": 1}, 2, "kv_heads = 1 does not divide"),
        ({"ffn_dim": 47}, 2, "ffn_dim = 47 does not divide"),
        ({"content_to_position": True}, 2, "tp is not for scores with distances"),
        ({"position": "alibi"}, 2, "tp is not for alibi positions"),
        ({"qk_norm": True}, 2, "norms of queries and keys with weights"),
        ({"n_experts": 4, "experts_per_token": 2}, 2, "a mixture of experts"),
        ({"decoder_layers": 2}, 2, "an encoder-decoder; set train.parallel=fsdp"),
    ],
)
def test_models_that_tensor_parallelism_cannot_divide_are_refused(axes, processes, said):
    with pytest.raises(SettingsError, match=said):
        check(replace(CONFIG, **axes), processes)


@pytest.mark.parametrize("kind", KINDS)
def test_muon_orthogonalises_whole_matrices(runs, kind):
    assert_close(runs / f"{kind}-muon", runs / "one-muon")


def test_activation_checkpointing_changes_no_loss(runs):
    assert [line["loss"] for line in log(runs / "fsdp-recompute")] == [
        line["loss"] for line in log(runs / "fsdp")
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_with_as_many_processes_is_bit_exact(runs, kind):
    again, whole = (
        load_file(runs / name / "model.safetensors") for name in (f"{kind}-to-{kind}", kind)
    )
    assert all((again[name] == whole[name]).all() for name in whole)
    assert [line["loss"] for line in log(runs / f"{kind}-to-{kind}")] == [
        line["loss"] for line in log(runs / kind)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_with_another_number_of_processes(runs, kind):
    assert_close(runs / f"one-to-{kind}", runs / "one")
    files = {
        path.suffix
        for path in (runs / f"{kind}-to-one" / "checkpoints").rglob("*")
        if path.is_file()
    }
    assert files == {".safetensors", ".json"}
    work(runs / f"{kind}-to-one", {"ema": 0.9, "parallel": kind})
    assert_close(runs / f"{kind}-to-one", runs / "one")


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_process_ends_the_run_which_then_resumes(runs, tmp_path, kind):
    """After kill -9 of either process the other reports it and ends at once, and the run resumes
    from its last checkpoint."""
    doomed = KINDS.index(kind) % 2
    jobs = [(tmp_path, {"ema": 0.9, "parallel": kind, "die": [doomed, 8]})]
    children = forked.start_group(work_all, jobs, outputs=tmp_path)
    results = forked.wait_group(children, tmp_path)
    assert results[doomed][0] == -9
    # most of this is the interpreter's own shutdown
    assert time.time() - (tmp_path / "died").stat().st_mtime < 20
    code, said = results[1 - doomed]
    assert code == 2 and "another process of the run has ended" in said.splitlines()[-1], said
    assert len(log(tmp_path)) < len(log(runs / "one"))
    work(tmp_path, {"ema": 0.9, "parallel": kind})
    assert_close(tmp_path, runs / "one")


def sharded(runs: Path, folder: Path) -> Path:
    """A copy of the last checkpoint of the FSDP run."""
    (checkpoint,) = (runs / "fsdp" / "checkpoints").glob("step-*")
    return shutil.copytree(checkpoint, folder)


def like_of(folder: Path) -> Callable[[str], torch.Tensor | None]:
    """The argument of `read_shards` for a model that was trained with AdamW and an average."""
    named = dict(trainer(folder).model.named_parameters())

    def like(key: str) -> torch.Tensor | None:
        kind, _, name = key.partition(".")
        return torch.tensor(0.0) if kind == "step" or name == "updates" else named.get(name)

    return like


def test_a_missing_truncated_or_foreign_shard_is_an_error(runs, tmp_path):
    like = like_of(tmp_path / "run")
    whole = read_shards(sharded(runs, tmp_path / "whole"), like)
    assert len(whole) > 100 and whole["weight.head.out.weight"].abs().sum() > 0
    lost = sharded(runs, tmp_path / "lost")
    sorted(lost.glob("*.safetensors"))[0].unlink()
    cut = sharded(runs, tmp_path / "cut")
    shard = next(cut.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    for folder, message in ((lost, "missing|fitting"), (cut, "damaged checkpoint")):
        with pytest.raises(RunError, match=message):
            read_shards(folder, like)
    with pytest.raises(RunError, match="no fitting"):
        read_shards(tmp_path / "whole", lambda key: torch.zeros(3))
    denied = patch.object(
        sharding,
        "check_safetensors",
        side_effect=PermissionError(13, "Permission denied", "a shard"),
    )
    with (
        denied,
        pytest.raises(
            RunError, match="^a shard: cannot be read: Permission denied; check its permissions"
        ),
    ):
        read_shards(tmp_path / "whole", like)


def test_a_corrupt_shard_is_read_or_refused(runs, tmp_path):
    like = like_of(tmp_path / "run")
    folder = sharded(runs, tmp_path / "hostile")
    shard = next(folder.glob("*.safetensors"))
    sound = shard.read_bytes()
    header = int.from_bytes(sound[:8], "little")

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(
            st.tuples(st.integers(0, header + 8), st.sampled_from(b'0199{}[]",:-eA')),
            min_size=1,
            max_size=3,
        )
    )
    def check(changes: list[tuple[int, int]]) -> None:
        damaged = bytearray(sound)
        for place, byte in changes:
            damaged[place] = byte
        shard.write_bytes(bytes(damaged))
        with contextlib.suppress(RunError):
            read_shards(folder, like)

    check()


def test_an_indivisible_batch_is_reported_in_one_line(runs):
    """It is the last job of the two processes; no job before it printed a warning."""
    said = (runs / "said.txt").read_text()
    lines = [line for line in said.splitlines() if not line.startswith(("step ", "training "))]
    assert (
        len(lines) == 1 and "a batch of 1 sequences cannot be divided among 2 processes" in lines[0]
    ), said
