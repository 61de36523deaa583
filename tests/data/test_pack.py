"""Packing: every example once, no batch over its budget, an order that is a function of (seed,
epoch) alone."""

import itertools
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from langue.data.batch import Examples, gather
from langue.data.loader import Loader, Split, prefetch
from langue.data.pack import shuffled_batches, sorted_batches
from langue.errors import DataError, SettingsError
from langue.model.heads import first_tokens, last_tokens, pool_mean
from langue.settings.sections import TrainSettings


def examples_of(lengths, segments=False):
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = np.arange(starts[-1], dtype=np.int32)
    kinds = (tokens % 2).astype(np.uint8) if segments else None
    return Examples(
        tokens, starts, kinds, np.zeros(len(lengths), np.int32), np.arange(len(lengths))
    )


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=200),
    st.integers(40, 300),
    st.integers(0, 9),
    st.integers(0, 5),
    st.integers(0, 3),
)
def test_each_row_once_and_within_budget(lengths, budget, most, seed, epoch):
    array = np.asarray(lengths)
    batches = shuffled_batches(array, budget, most, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(array[rows].sum() <= budget and (not most or len(rows) <= most) for rows in batches)
    again = shuffled_batches(array, budget, most, seed, epoch)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
    whole = sorted_batches(array, budget)
    assert sorted(np.concatenate(whole).tolist()) == list(range(len(lengths)))


def test_epochs_and_seeds_differ_and_order_is_random():
    lengths = np.random.default_rng(0).integers(5, 60, 2000)
    first, second = (
        np.concatenate(shuffled_batches(lengths, 512, 0, 0, epoch)) for epoch in (0, 1)
    )
    other = np.concatenate(shuffled_batches(lengths, 512, 0, 1, 0))
    assert not np.array_equal(first, second) and not np.array_equal(first, other)
    means = [lengths[rows].mean() for rows in shuffled_batches(lengths, 512, 0, 0, 0)]
    # neighbours in time are not neighbours in length
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.25


def test_packing_is_tight():
    lengths = np.random.default_rng(0).integers(5, 256, 5000)
    batches = shuffled_batches(lengths, 8192, 0, 0, 0)
    filled = sum(lengths[rows].sum() for rows in batches) / (8192 * len(batches))
    assert filled > 0.95


def test_a_budget_below_the_longest_text_is_refused():
    with pytest.raises(SettingsError, match="longest example, 50 tokens"):
        shuffled_batches(np.asarray([50, 2]), 40, 0, 0, 0)


def test_gather_keeps_each_sequence_and_groups_equal_lengths():
    examples = examples_of([3, 1, 3, 2], segments=True)
    batch = gather(examples, np.asarray([0, 1, 2, 3]))
    assert batch.rows.tolist() == [1, 3, 0, 2]
    assert batch.starts.tolist() == [0, 1, 3, 6, 9]
    assert batch.tokens.tolist() == [3, 7, 8, 0, 1, 2, 4, 5, 6]
    assert batch.positions.tolist() == [0, 0, 1, 0, 1, 2, 0, 1, 2]
    assert batch.groups == [(0, 1, 1), (1, 1, 2), (3, 2, 3)]
    assert batch.segments is not None and batch.segments.tolist() == [
        token % 2 for token in batch.tokens.tolist()
    ]
    assert batch.targets is not None and batch.targets.tolist() == batch.rows.tolist()


def test_pooling():
    batch = gather(examples_of([2, 1, 2]), np.asarray([0, 1, 2]))
    hidden = torch.tensor([[1.0], [2.0], [4.0], [6.0], [8.0]])
    assert pool_mean(hidden, batch).squeeze(1).tolist() == [1.0, 3.0, 7.0]
    assert first_tokens(batch).tolist() == [0, 1, 3] and last_tokens(batch).tolist() == [0, 2, 4]
    assert last_tokens(batch, pad=int(batch.tokens[4])).tolist() == [0, 2, 3]


def test_the_loader_goes_on_from_any_step():
    examples = examples_of(np.random.default_rng(0).integers(1, 30, 100).tolist())
    loader = Loader(
        Split(examples, TrainSettings(batch_tokens=128, batch_examples=0, seed=3)), accumulate=2
    )
    total = loader.total(2.5)
    assert total == sum(len(loader.steps(e)) for e in (0, 1)) + round(0.5 * len(loader.steps(2)))

    def rows(begin, count):
        steps = loader.iterate(begin, total + 9, torch.device("cpu"))
        return [[b.rows.tolist() for b in next(steps)[1]] for _ in range(count)]

    whole = rows(0, total)
    assert len(list(loader.iterate(2, total, torch.device("cpu")))) == total - 2
    for begin in (1, len(loader.steps(0)) - 1, len(loader.steps(0)), len(loader.steps(0)) + 1):
        assert rows(begin, 3) == whole[begin : begin + 3]


def test_the_next_step_is_made_while_one_is_in_use():
    made = threading.Event()
    used = threading.Event()

    def items():
        yield "first"
        assert threading.current_thread() is not threading.main_thread()
        made.set()
        yield "second"
        used.wait(10)
        raise DataError("damaged")

    steps = prefetch(items())
    assert next(steps) == "first" and made.wait(10)
    assert next(steps) == "second"
    used.set()
    with pytest.raises(DataError, match="damaged"):
        next(steps)
    assert list(prefetch(iter(range(100)))) == list(range(100))
    left = prefetch(itertools.count())
    assert next(left) == 0
    left.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("langue-prefetch")]


def test_so_many_steps_are_known_without_planning_so_many_passes():
    class Unplanned(Split):
        def plan(self, epoch):
            raise AssertionError("planned")

    examples = examples_of([3] * 10)
    assert Loader(Unplanned(examples, TrainSettings())).total(1e6, 5000) == 5000
    assert (
        Loader(Split(examples, TrainSettings(batch_tokens=30, batch_examples=0))).total(7, 5) == 5
    )
    assert (
        Loader(Split(examples, TrainSettings(batch_tokens=30, batch_examples=0))).total(3, 5) == 3
    )
