"""The bag of words: right features, chosen without the test set, and never in the way of a run."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from langue.errors import DataError
from langue.statistics import bag_of_words as module
from langue.statistics.ngrams import _TOKEN, Ngrams, tokens
from tests.judging import baseline

GOOD = ["good", "great", "fine", "lovely", "superb"]
BAD = ["bad", "awful", "poor", "dull", "weak"]
TEXTS = ["a b a b c", "b a c!", "", "zebra", "a b c d 中文字 don't", "中文 a b"]


def reviews(n: int, seed: int) -> tuple[list[str], np.ndarray]:
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, 2, n)
    filler = [f"word{i}" for i in range(50)]
    texts = [
        " ".join([*generator.choice(filler, 5), generator.choice(GOOD if t else BAD)])
        for t in targets
    ]
    return texts, targets


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("min_df", [1, 2])
def test_ngrams_count_as_scikit_learn_does(order, min_df):
    grams = Ngrams(order, min_df)
    fitted = grams.fit(TEXTS)
    again = grams.transform(TEXTS)
    for n, (matrix, other) in enumerate(zip(fitted, again, strict=True), start=1):
        assert (matrix != other).nnz == 0
        reference = CountVectorizer(
            ngram_range=(n, n), tokenizer=tokens, token_pattern=None, lowercase=False
        )
        try:
            counted = reference.set_params(min_df=min_df).fit_transform(TEXTS).toarray()
        except ValueError:  # scikit-learn refuses an empty vocabulary
            counted = np.zeros((len(TEXTS), 0))
        columns = sorted(map(tuple, matrix.toarray().T.astype(int).tolist()))
        assert columns == sorted(map(tuple, counted.T.tolist())), n


def test_ngrams_do_not_cross_texts_nor_bridge_unknown_words():
    grams = Ngrams(2, 1)
    grams.fit(["a b", "b c"])
    found = grams.transform(["a", "b", "a x b", "a b c", "b a"])
    assert found[1].sum(axis=1).ravel().tolist() == [[0, 0, 0, 2, 0]]
    assert [matrix.shape[1] for matrix in Ngrams(2, 5).fit(["a", "b"])] == [0, 0]
    unseen = Ngrams(2, 5)
    unseen.fit(["a b"])
    assert unseen.transform(["a b"])[1].shape == (1, 0)


def test_tokens():
    assert tokens("Don't STOP, it's 5_0 café!") == [
        "don't",
        "stop",
        ",",
        "it's",
        "5",
        "_",
        "0",
        "café",
        "!",
    ]
    assert tokens("iPhone手机好") == ["iphone", "手", "机", "好"]
    printable = "".join(map(chr, range(128))) + " don't it''s 'tis a'b'c"
    assert tokens(printable) == _TOKEN.findall(printable.lower())


def test_it_learns_and_beats_chance():
    train = reviews(400, 0)
    test = reviews(200, 1)
    found = baseline("classify", *train, *test)
    assert set(found.as_json()) == {"name", "metrics", "seconds"} and found.predictions.shape == (
        200,
        2,
    )
    assert found.name in (
        "unigram tf-idf + logistic regression",
        "bigram tf-idf + logistic regression",
    )
    assert found.metrics["accuracy"] > 0.97 and found.seconds > 0


def test_bigrams_are_chosen_where_order_carries_the_label():
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 2, 600)
    pairs = [("not good but bad", "not bad but good")[t] for t in targets]
    texts = [f"{generator.choice(list('qwrtz'))} {pair}" for pair in pairs]
    found = baseline("classify", texts[:400], targets[:400], texts[400:], targets[400:])
    assert found.name.startswith("bigram") and found.metrics["accuracy"] == 1.0


def test_the_test_set_has_no_part_in_the_choice(monkeypatch):
    seen = []
    choose = module._choose
    monkeypatch.setattr(module, "_choose", lambda *given: seen.append(given[4]) or choose(*given))
    train = reviews(100, 0)
    test = reviews(60, 1)
    found = baseline("classify", *train, *test)
    flipped = baseline("classify", *train, test[0], 1 - test[1])
    assert found.name == flipped.name and [len(targets) for targets in seen] == [100, 100]
    assert flipped.metrics["accuracy"] == pytest.approx(1 - found.metrics["accuracy"])


def test_chinese_is_taken_by_characters():
    texts = ["房间很好很干净", "服务太差很失望"] * 40
    targets = [1, 0] * 40
    found = baseline("classify", texts, targets, texts, targets)
    assert found.name.startswith("character ") and found.metrics["accuracy"] == 1.0


def test_several_labels_a_text():
    texts, targets = reviews(300, 0)
    both = np.stack([targets, 1 - targets, np.zeros(300, dtype=int)], axis=1)
    found = baseline("multilabel", texts[:200], both[:200], texts[200:], both[200:])
    assert found.metrics["f1_micro"] > 0.95


def test_scores_of_pairs():
    generator = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(30)])
    left = [generator.choice(words, 6, replace=False) for _ in range(400)]
    shared = generator.integers(0, 7, 400)
    right = [
        np.concatenate([one[:k], generator.choice(words, 6 - k)])
        for one, k in zip(left, shared, strict=True)
    ]
    a = [" ".join(one) for one in left]
    b = [" ".join(one) for one in right]
    found = baseline(
        "regress",
        a[:300],
        shared[:300],
        a[300:],
        shared[300:],
        train_pairs=b[:300],
        test_pairs=b[300:],
    )
    assert found.name.endswith("ridge regression") and found.metrics["spearman"] > 0.9
    alone = baseline("regress", a[:300], shared[:300], a[300:], shared[300:])
    assert (alone.metrics["spearman"] or 0.0) < 0.5


def test_a_large_training_set_is_sampled_and_the_name_says_so(monkeypatch):
    monkeypatch.setattr(module, "MAX_CHARACTERS", 10_000)
    texts, targets = reviews(1000, 0)
    found = baseline("classify", texts, targets, texts[:50], targets[:50])
    assert found.name.endswith(" of 1,000 training texts") and found.metrics["accuracy"] > 0.9


def test_blocks_of_test_texts_change_nothing(monkeypatch):
    train = reviews(200, 0)
    test = reviews(90, 1)
    whole = baseline("classify", *train, *test)
    monkeypatch.setattr(module, "BLOCK", 7)
    assert baseline("classify", *train, *test).metrics == pytest.approx(whole.metrics)


def test_it_is_never_in_the_way():
    """Tiny, one-sided, empty and unseen data get an answer, for a run must not fail on its
    baseline."""
    assert (
        baseline("classify", ["a", "b"], [1, 1], ["a"], [0], n_labels=3).metrics["accuracy"] == 0.0
    )
    assert baseline("classify", ["", " "] * 20, [0, 1] * 20, [""], [1]).metrics["accuracy"] in (
        0.0,
        1.0,
    )
    assert baseline("classify", ["a b", "c d", "e f"], [0, 1, 2], ["zzz"], [2]).metrics[
        "accuracy"
    ] in (0.0, 1.0)
    assert (
        baseline("regress", ["a"] * 15, [1.0] * 15, ["b", "c"], [1.0, 2.0]).metrics["spearman"]
        is None
    )
    with pytest.raises(DataError, match="needs texts"):
        baseline("classify", [], [], ["a"], [0])


def test_it_has_what_the_model_beside_it_has():
    """Weights, a threshold, and the metric by which it is chosen: where labels are rare, each
    changes the answer."""
    generator = np.random.default_rng(0)
    texts, common = reviews(600, 0)
    rare = (generator.random(600) < 0.15) & (common == 1)
    both = np.stack([rare, rare & (generator.random(600) < 0.7)], axis=1).astype(int)
    given = ("multilabel", texts[:400], both[:400], texts[400:], both[400:])
    plain = baseline(*given, metric="f1_macro").metrics
    assert (
        baseline(*given, metric="f1_macro", tune_threshold=True).metrics["f1_macro"]
        > plain["f1_macro"]
    )
    weighted = baseline(*given, metric="f1_macro", balanced=True)
    assert weighted.name.endswith(", balanced")
    assert weighted.metrics["recall_macro"] > plain["recall_macro"]
