"""Who holds which page: nothing is lost, nothing is given twice, and what is promised is there."""

import numpy as np
import pytest

from langue.generation.pages import CHUNK, PagePool, chunk_keys
from langue.model.cache import PAGE

CHUNK_PAGES = CHUNK // PAGE


class Holder:
    """A sequence as the engine has it: reserved for its worst case, then taken page by page."""

    def __init__(self, keys, worst):
        self.keys = keys
        self.worst = worst
        self.pages = []
        self.reserved = 0


def admit(pool, holder):
    known = [page for chunk in pool.known(holder.keys) for page in chunk]
    for page in known:
        pool.hold(page)
    if not pool.reserve(holder.worst - len(known)):
        for page in known:
            pool.release(page)
        return False
    holder.pages = known
    holder.reserved = holder.worst - len(known)
    return True


def check(pool, holders):
    held = np.zeros(pool.count, int)
    for holder in holders:
        for page in holder.pages:
            held[page] += 1
    assert (held == pool.holders).all()
    kept = {page for page in pool.chunk_of if not pool.holders[page]}
    assert len(kept) == pool.n_kept
    assert len(set(pool.free)) == len(pool.free)
    assert not set(pool.free) & set(pool.chunk_of)
    assert len(pool.free) + len(kept) + int((held > 0).sum()) == pool.count
    assert pool.reserved == sum(holder.reserved for holder in holders)
    assert pool.available >= 0
    if not holders:
        assert len(pool.free) + pool.n_kept == pool.count


@pytest.mark.parametrize("seed", range(4))
def test_random_walks_keep_the_account(seed):
    random = np.random.default_rng(seed)
    pool = PagePool(40)
    holders = []
    shared = 0
    # few beginnings, so that they come again
    prompts = [random.integers(0, 4, random.integers(1, 5) * CHUNK + 3) for _ in range(5)]
    for _ in range(2500):
        action = random.random()
        if action < 0.3:
            prompt = prompts[random.integers(len(prompts))]
            keys = chunk_keys(prompt.tolist(), salt=str(random.integers(2)))
            holder = Holder(keys, len(keys) * CHUNK_PAGES + int(random.integers(1, 4)))
            if admit(pool, holder):
                shared += len(holder.pages)
                holders.append(holder)
        elif action < 0.8 and holders:
            holder = holders[random.integers(len(holders))]
            if holder.reserved:
                holder.pages.append(pool.take())
                holder.reserved -= 1
            done = len(holder.pages) // CHUNK_PAGES
            for index, key in enumerate(holder.keys[:done]):
                begin = index * CHUNK_PAGES
                pool.keep(key, holder.pages[begin : begin + CHUNK_PAGES])
        elif holders:
            holder = holders.pop(random.integers(len(holders)))
            for page in holder.pages:
                pool.release(page)
            pool.unreserve(holder.reserved)
        check(pool, holders)
    assert shared > 100, "the walk never met a known beginning"


def test_a_key_is_of_all_tokens_up_to_its_end_and_of_its_owner():
    tokens = list(range(3 * CHUNK))
    other = [9, *tokens[1:]]
    keys = chunk_keys(tokens)
    assert len(keys) == 2, "the chunk with the last token is always computed"
    assert len(chunk_keys([*tokens, 1])) == 3
    assert not set(keys) & set(chunk_keys(other))
    assert not set(keys) & set(chunk_keys(tokens, salt="another"))
    assert keys[:1] == chunk_keys(tokens[: CHUNK + 1])


def test_a_reservation_that_does_not_fit_is_refused_and_changes_nothing():
    pool = PagePool(3)
    assert not pool.reserve(4)
    assert pool.reserve(3)
    assert not pool.reserve(1)
    assert [pool.take() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(AssertionError, match="not reserved"):
        pool.take()
