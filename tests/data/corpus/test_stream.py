"""The stream of pieces: every token once a pass, budgets filled, no document beside another's
tokens."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langue.data.corpus.stream import Chunks, SpecialTokenOverhead, Stream, places_of, uniform
from langue.data.pack import exact_bounds
from langue.errors import DataError, SettingsError
from tests.memory import Memory

PLAIN = SpecialTokenOverhead()
LENGTHS = st.lists(st.integers(0, 90), min_size=1, max_size=40).filter(sum)


def stream(lengths, frame=PLAIN, block=16, budget=64, seed=0, ramp=0, weights=None):
    corpus = Memory([np.arange(n) for n in lengths], weights)
    return Stream(corpus, None, frame, block=block, budget=budget, seed=seed, ramp=ramp)


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=50),
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
)
def test_exact_bounds_fill_their_budgets_and_lose_nothing(lengths, budgets):
    first, within = exact_bounds(np.asarray(lengths), np.asarray(budgets))
    starts = np.cumsum([0, *lengths])
    tokens = [(p, i) for p, n in enumerate(lengths) for i in range(n)]
    sizes = np.diff(starts[first] + within).tolist()
    assert starts[first[0]] + within[0] == 0 and all(w >= 0 for w in within)
    wanted = [budgets[min(i, len(budgets) - 1)] for i in range(len(sizes))]
    assert sizes[:-1] == wanted[:-1] and 0 < sizes[-1] <= wanted[-1]
    assert [tokens[at] for at in np.cumsum(sizes)[:-1]] == list(
        zip(first[1:-1], within[1:-1], strict=True)
    )
    assert sum(sizes) == len(tokens)


@settings(deadline=None)
@given(LENGTHS, st.integers(0, 1), st.integers(0, 2), st.integers(0, 3), st.integers(0, 5))
def test_a_pass_sees_every_token_once_within_the_budget(lengths, document, piece, epoch, ramp):
    made = stream(lengths, SpecialTokenOverhead(document, piece), ramp=ramp)
    seen = []
    plan = made.plan(epoch)
    for rows in plan:
        assert (rows[:, 2] + piece).sum() <= 64 and rows[:, 2].max() + piece <= 16
        seen += [(d, b + i) for d, b, n, _ in rows.tolist() for i in range(n)]
    assert sorted(seen) == [(d, i) for d, n in enumerate(lengths) for i in range(n + document)]


def test_a_plan_takes_memory_by_the_piece():
    """And in few bytes: a pass may have many millions."""

    class Many:
        lengths = np.full(100_000, 500)
        n_bytes = 1
        sources = [("all", 1.0, 0, 100_000)]

    made = Stream(Many(), None, PLAIN, block=256, budget=4096, seed=0)
    tracemalloc.start()
    try:
        pieces = sum(map(len, made.plan(0)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert pieces > 200_000 and peak < 70 * pieces


def test_all_batches_but_the_last_are_full():
    made = stream([40] * 500, SpecialTokenOverhead(chunk=2), block=64, budget=1024)
    sizes = sorted(int((rows[:, 2] + 2).sum()) for rows in made.plan(0))
    assert sizes[1] > 0.98 * 1024
    plain = stream([37, 5, 1000, 60] * 50, block=64, budget=1024)
    assert sorted(int(rows[:, 2].sum()) for rows in plain.plan(3))[1] == 1024


def test_the_order_is_a_function_of_seed_and_pass_alone():
    for epoch in (0, 1):
        again = zip(stream([50] * 20).plan(epoch), stream([50] * 20).plan(epoch), strict=True)
        assert all(np.array_equal(a, b) for a, b in again)
    assert not np.array_equal(stream([50] * 20).plan(0)[0], stream([50] * 20).plan(1)[0])


def test_the_cuts_of_a_long_document_move_from_pass_to_pass():
    made = stream([2000])
    begins = {
        int(b % 16)
        for epoch in range(8)
        for b in made.chunks(epoch, np.random.default_rng(epoch))[1:, 1]
    }
    assert len(begins) > 3


def test_the_ramp_goes_through_passes():
    made = stream([30] * 10, budget=128, ramp=20)
    plans = [made.plan(epoch) for epoch in range(8)]
    sizes = [[int(rows[:, 2].sum()) for rows in plan] for plan in plans]
    at = 0
    wanted = made.budgets.tolist() + [128] * 20
    for each in sizes:
        growing = min(len(each) - 1, max(0, 20 - at))
        assert sum(each) == 300 and each[:growing] == wanted[at : at + growing]
        at += len(each)
    assert max(sizes[0]) < 64 and max(sizes[-1]) == 128
    assert made.tokens_in(3) == sum(wanted[:3]) and made.tokens_in(30) == sum(wanted[:30])
    for batches in (1, 3, 20, 21, 30):
        assert made.batches_for(sum(wanted[:batches])) == batches
    alone = stream([30] * 10, budget=128, ramp=20)  # as a run that goes on asks for it
    assert all(np.array_equal(a, b) for a, b in zip(alone.plan(3), plans[3], strict=True))


def test_the_budget_grows_over_the_ramp():
    made = stream([30] * 200, budget=128, ramp=4)
    sizes = [int(rows[:, 2].sum()) for rows in made.plan(0)]
    assert sizes[:4] == [16, 44, 72, 100] and set(sizes[4:-1]) <= {128, min(sizes)}
    assert sorted({int(rows[:, 2].sum()) for rows in made.plan(1)})[-1] == 128


def test_sources_are_drawn_by_weight():
    made = stream(
        [10] * 300, weights=[("a", 1.0, 0, 100), ("b", 2.5, 100, 200), ("c", 0.3, 200, 300)]
    )
    documents = np.concatenate([np.unique(rows[:, :2], axis=0)[:, 0] for rows in made.plan(1)])
    tokens = np.concatenate([np.repeat(rows[:, 0], rows[:, 2]) for rows in made.plan(1)])
    counts = [((tokens >= a) & (tokens < a + 100)).sum() / 10 for a in (0, 100, 200)]
    assert counts[0] == 100 and 220 <= counts[1] <= 280 and 15 <= counts[2] <= 45
    assert len(documents)


def test_random_numbers_belong_to_tokens_and_not_to_batches():
    slices = Chunks(np.asarray([3, 5]), np.asarray([0, 7]), np.asarray([10, 4]), 2)
    places, of = places_of(slices)
    whole = uniform(1, 0, slices, places, of)
    part = Chunks(np.asarray([5]), np.asarray([8]), np.asarray([2]), 2)
    assert np.array_equal(uniform(1, 0, part, *places_of(part)), whole[11:13])
    many = Chunks(np.arange(200), np.zeros(200, np.int64), np.full(200, 50), 0)
    drawn = uniform(0, 1, many, *places_of(many))
    assert abs(drawn.mean() - 0.5) < 0.01 and abs((drawn < 0.15).mean() - 0.15) < 0.01
    assert len(np.unique(drawn)) == 10_000


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_a_document_drawn_again_in_a_pass_has_other_numbers(seed):
    made = stream([10] * 4, weights=[("a", 3.0, 0, 2), ("b", 1.0, 2, 4)], budget=16)
    slices = []
    made.make = lambda corpus, each, device: slices.append(each)
    for rows in made.plan(1):
        made.batch(rows, 1, None)
    parts = [
        [getattr(each, part) for each in slices]
        for part in ("document", "begin", "length", "repeat_index")
    ]
    *three, copy = (np.concatenate(part) for part in parts)
    whole = Chunks(*three, 1, copy)
    places, of = places_of(whole)
    drawn = uniform(seed, 0, whole, places, of)
    assert len(drawn) == 80 == len(np.unique(drawn))
    assert sorted(zip(whole.document[of], places, whole.repeat_index[of], strict=True)) == [
        (d, i, c) for d in range(4) for i in range(10) for c in range(3 if d < 2 else 1)
    ]
    first = whole.repeat_index[of] == 0  # and the first time those that it always had
    once = Chunks(whole.document, whole.begin, whole.length, 1)
    assert np.array_equal(drawn[first], uniform(seed, 0, once, places, of)[first])


def test_what_cannot_be_streamed_is_said():
    with pytest.raises(DataError, match="corpus is empty"):
        stream([0, 0])
    with pytest.raises(SettingsError, match="train.batch_tokens = 8"):
        stream([5], budget=8)
    with pytest.raises(SettingsError, match="no room"):
        stream([5], SpecialTokenOverhead(chunk=2), block=2)
