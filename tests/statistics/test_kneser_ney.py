"""The n-gram baseline against a slow, obvious one, its probabilities' sum, and real text."""

import gzip
import importlib
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langue.errors import DataError, SettingsError
from langue.statistics.kneser_ney import FALLBACK, baseline, discounts, fit

SIZE = 5
EOS = 4
BEGIN = -1


class Slow:
    """Chen and Goodman's equations over tuples, word for word."""

    def __init__(self, documents: list[list[int]], order: int, eos: int | None) -> None:
        self.order = order
        lists = [[BEGIN, *document] + ([] if eos is None else [eos]) for document in documents]
        raw = [Counter[tuple[int, ...]]() for _ in range(order + 1)]
        for words in lists:
            for n in range(1, order + 1):
                for end in range(max(n, 2), len(words) + 1):
                    raw[n][tuple(words[end - n : end])] += 1
        self.a: list[dict[tuple[int, ...], int]] = [{} for _ in range(order + 1)]
        for n in range(1, order + 1):
            before = defaultdict(set)
            for gram in raw[n + 1] if n < order else ():
                before[gram[1:]].add(gram[0])
            for gram, count in raw[n].items():
                self.a[n][gram] = count if n == order or gram[0] == BEGIN else len(before[gram])
        self.d = [None] + [(0.0, *discounts(np.array(list(a.values()) or [0]))) for a in self.a[1:]]

    def p(self, context: tuple[int, ...], word: int) -> float:
        n = len(context) + 1
        lower = self.p(context[1:], word) if n > 1 else 1 / SIZE
        d = self.d[n]
        assert d is not None
        following = [count for gram, count in self.a[n].items() if gram[:-1] == context]
        total = sum(following)
        if not total:
            return lower
        count = self.a[n].get((*context, word), 0)
        return (count - d[min(count, 3)]) / total + sum(
            d[min(c, 3)] for c in following
        ) / total * lower

    def logs(self, documents: list[list[int]], eos: int | None) -> list[float]:
        out = []
        for document in documents:
            words = [BEGIN, *document] + ([] if eos is None else [eos])
            for i in range(1, len(words)):
                out.append(math.log(self.p(tuple(words[max(0, i - self.order + 1) : i]), words[i])))
        return out


def flat(documents: list[list[int]], kind: type = np.uint16) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.array([token for document in documents for token in document], kind)
    return tokens, np.cumsum([0, *map(len, documents)])


DOCUMENTS = st.lists(st.lists(st.integers(0, SIZE - 2), max_size=9), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, DOCUMENTS, st.integers(1, 5), st.sampled_from([EOS, None]))
def test_it_is_what_the_equations_say(train, dev, order, eos):
    if not any(train) and eos is None:
        return
    model = fit(*flat(train), vocab_size=SIZE, eos=eos, order=order)
    slow = Slow(train, model.order, eos)
    assert model.order == order or max(map(len, train)) + 1 < order
    np.testing.assert_allclose(model.log_probabilities(*flat(dev)), slow.logs(dev, eos), rtol=1e-12)


def test_probabilities_sum_to_one_after_any_context():
    rng = np.random.default_rng(0)
    train = [rng.integers(0, 3, rng.integers(0, 30)).tolist() for _ in range(40)]  # 3 is never seen
    model = fit(*flat(train), vocab_size=SIZE, eos=EOS, order=4)
    for context in ([], [0], [1, 2], [2, 2, 2, 1, 0], [3], [0, 3, 1], [EOS, 1]):
        documents = [[*context, word] for word in range(SIZE)]
        tokens, starts = flat(documents)
        logs = model.log_probabilities(tokens, starts).reshape(SIZE, -1)
        assert np.exp(logs[:, len(context)]).sum() == pytest.approx(1.0, abs=1e-12)
        assert np.isfinite(logs).all()


def test_what_was_never_seen_gets_the_uniform_share():
    model = fit(*flat([[0, 0, 1], [0, 1]]), vocab_size=SIZE, eos=EOS, order=1)
    logs = model.log_probabilities(*flat([[2], [3]])).reshape(2, 2)
    # Counts 3, 2, 2 (0, 1, end), discounts 1.5, 1, 1: half of the mass is given to five tokens.
    assert np.exp(logs[:, 0]) == pytest.approx([3.5 / 7 / 5] * 2)
    assert np.exp(logs[:, 1]) == pytest.approx([1 / 7 + 3.5 / 7 / 5] * 2)


def test_discounts_by_hand():
    counts = np.repeat([1, 2, 3, 4, 9], [8, 4, 2, 1, 3])
    y = 8 / 16
    assert discounts(counts) == pytest.approx(
        (1 - 2 * y * 4 / 8, 2 - 3 * y * 2 / 4, 3 - 4 * y * 1 / 2)
    )
    assert discounts(np.array([7, 9])) == FALLBACK


def test_blocks_do_not_change_what_is_judged(monkeypatch):
    rng = np.random.default_rng(1)
    documents = [rng.integers(0, 4, rng.integers(0, 12)).tolist() for _ in range(60)]
    model = fit(*flat(documents), vocab_size=SIZE, eos=EOS, order=4)
    whole = model.log_probabilities(*flat(documents))
    monkeypatch.setattr(importlib.import_module("langue.statistics.kneser_ney"), "CHUNK", 7)
    assert np.array_equal(model.log_probabilities(*flat(documents)), whole)


@pytest.mark.parametrize("size", [60, 2**60])  # packed into one number, and too large for that
def test_blocks_do_not_change_what_is_counted(monkeypatch, size):
    rng = np.random.default_rng(3)
    ranks = np.sort(rng.integers(0, 5 if size == 60 else 1, 300)).astype(np.int32)
    left = rng.integers(0, 9, 300).astype(np.int32)
    module = importlib.import_module("langue.statistics.kneser_ney")
    order, new = module._sorted(ranks, left, size)
    pairs = list(zip(ranks[order].tolist(), left[order].tolist(), strict=True))
    assert pairs == sorted(zip(ranks.tolist(), left.tolist(), strict=True))
    assert new.tolist() == [True] + [a != b for a, b in zip(pairs, pairs[1:], strict=False)]
    documents = [rng.integers(0, 4, rng.integers(0, 12)).tolist() for _ in range(60)]
    whole = fit(*flat(documents), vocab_size=SIZE, eos=EOS, order=4)
    monkeypatch.setattr(module, "BLOCK", 5)
    for one, other in zip(
        fit(*flat(documents), vocab_size=SIZE, eos=EOS, order=4).levels, whole.levels, strict=True
    ):
        assert np.array_equal(one.keys, other.keys) and np.array_equal(one.weight, other.weight)


def test_a_limit_and_a_memory_budget_are_kept_and_said():
    rng = np.random.default_rng(2)
    documents = [rng.integers(0, 4, 50).tolist() for _ in range(20)]
    cut = fit(*flat(documents), vocab_size=SIZE, eos=EOS, order=3, limit=175)
    assert cut.tokens == 175 and "first 175 of 1,000" in cut.note
    whole = documents[:3]
    slow = Slow([*whole, documents[3][:25]], 3, None)
    eos_counts = fit(*flat([*whole, documents[3][:25]]), vocab_size=SIZE, eos=None, order=3)
    probe = flat(documents[5:6])
    assert eos_counts.log_probabilities(*probe) == pytest.approx(slow.logs(documents[5:6], None))
    # whole documents: they end
    again = fit(*flat(documents), vocab_size=SIZE, eos=EOS, order=3, limit=150)
    assert np.array_equal(
        again.log_probabilities(*probe),
        fit(*flat(documents[:3]), vocab_size=SIZE, eos=EOS, order=3).log_probabilities(*probe),
    )
    small = fit(*flat(documents), vocab_size=SIZE, eos=EOS, order=5, memory=60_000)
    assert small.order == 3 and small.note == "order 3 instead of 5: more might not fit in 0 MiB"
    short = fit(*flat([[1, 2], [3]]), vocab_size=SIZE, eos=EOS, order=9)
    assert (short.order, short.note) == (4, "order 4 instead of 9: no document is longer")


@pytest.mark.parametrize("eos", [EOS, None])
def test_each_document_has_its_own_loss(eos):
    """As judged alone; an empty one has an end to predict, or nothing."""
    train = flat([[1, 2, 3, 1, 2], [3, 1, 2]])
    dev = [[1, 2], [], [3, 3, 1], [2]]
    found = baseline(train, flat(dev), vocab_size=SIZE, eos=eos, order=2)
    assert found.document_counts.tolist() == [len(document) + (eos is not None) for document in dev]
    for document, loss in zip(dev, found.document_losses, strict=True):
        alone = (
            found.model.log_probabilities(*flat([document]))
            if document or eos is not None
            else np.zeros(0)
        )
        assert loss == pytest.approx(-alone.sum())
    assert found.document_losses.sum() / found.document_counts.sum() == pytest.approx(
        found.cross_entropy
    )


def test_what_cannot_be_counted_is_said():
    with pytest.raises(DataError, match="not in the vocabulary"):
        fit(*flat([[9]]), vocab_size=SIZE, eos=EOS)
    with pytest.raises(DataError, match="starts do not fit"):
        fit(np.array([1, 2]), np.array([0, 5]), vocab_size=SIZE, eos=EOS)
    with pytest.raises(DataError, match="no text"):
        fit(np.array([], np.uint16), np.array([0]), vocab_size=SIZE, eos=EOS)
    with pytest.raises(SettingsError, match="order 0"):
        fit(*flat([[1]]), vocab_size=SIZE, eos=EOS, order=0)
    with pytest.raises(DataError, match="held-out"):
        baseline(flat([[1]]), (np.array([], np.uint16), np.array([0])), vocab_size=SIZE, eos=EOS)


def test_shakespeare_by_characters(shared_data):
    """1.5165 nats a character at order 7: an honest number to beat."""
    text = gzip.decompress((shared_data("text") / "tinyshakespeare.txt.gz").read_bytes()).decode()
    _, ids = np.unique(np.frombuffer(text.encode("utf-32-le"), np.uint32), return_inverse=True)
    n = int(0.9 * len(ids))
    train = ids[:n].astype(np.uint16)
    dev = ids[n:].astype(np.uint16)
    found = [
        baseline(
            (train, np.array([0, n])),
            (dev, np.array([0, len(dev)])),
            vocab_size=65,
            eos=None,
            order=order,
        )
        for order in (2, 5)
    ]
    assert [each.cross_entropy for each in found] == pytest.approx([2.4835, 1.5612], abs=1e-4)
    assert found[1].perplexity == pytest.approx(math.exp(found[1].cross_entropy))
    assert (found[1].order, found[1].predictions, found[1].note) == (5, len(dev), "")
