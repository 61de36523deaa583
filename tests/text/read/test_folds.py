"""Folds and shares of training rows."""

import numpy as np
import pytest

from langue.errors import DataError
from langue.text.read.source import read
from langue.text.read.split import divide, divide_groups, nested_order

ROWS = [{"text": f"text {i}", "label": "abbc"[i % 4]} for i in range(41)]
OPTIONS = {"need": ("text", "label"), "stratify": "label"}


def texts(table):
    return list(table.column("text"))


def test_each_row_is_in_the_test_of_one_fold_and_never_in_its_training():
    seen = []
    for number in range(1, 6):
        source = read(ROWS, fold=(number, 5), **OPTIONS)
        there = texts(source.train) + texts(source.dev) + texts(source.test)
        assert sorted(there) == sorted(row["text"] for row in ROWS)
        seen += texts(source.test)
        assert set(source.test.column("label")) == set("abc")
        assert any("fold" in note for note in source.notes)
    assert sorted(seen) == sorted(row["text"] for row in ROWS)


@pytest.mark.parametrize("seed", range(5))
def test_folds_of_a_class_differ_by_a_row(seed):
    classes = np.repeat([0, 1, 2, 3], [17, 30, 3, 1])
    fold_of = divide(51, 4, seed, classes)
    for name in range(3):
        counts = np.bincount(fold_of[classes == name], minlength=4)
        assert counts.max() - counts.min() <= 1
    assert fold_of[-1] == -1  # the only one of its class is always trained on
    plain = np.bincount(divide(51, 4, seed, None), minlength=4)
    assert sorted(plain) == [12, 13, 13, 13]


def test_groups_stay_together():
    values = [f"speaker {i % 7}" for i in range(60)]
    fold_of = divide_groups(values, 3, 0)
    for value in set(values):
        assert len({fold_of[i] for i, each in enumerate(values) if each == value}) == 1
    assert np.bincount(fold_of).max() <= 27
    assert divide_groups(["a", "b"] * 5, 3, 0) is None


def test_a_smaller_share_is_part_of_a_larger_one_and_has_every_label():
    before = set()
    sizes = []
    for share in (0.05, 0.2, 0.5, 1.0):
        source = read(ROWS, share=share, **OPTIONS)
        now = set(texts(source.train))
        assert before <= now and set(source.train.column("label")) == set("abc")
        whole = read(ROWS, **OPTIONS)
        assert texts(source.dev) == texts(whole.dev) and texts(source.test) == texts(whole.test)
        before = now
        sizes.append(len(now))
    assert sizes == [3, 7, 16, 33] and now == set(texts(whole.train))


def test_a_beginning_of_the_order_has_the_shares_of_the_classes():
    classes = np.repeat([0, 1], [900, 100])
    order = nested_order(1000, 0, classes)
    assert sorted(order) == list(range(1000))
    for count in (50, 100, 500):
        assert abs(classes[order[:count]].mean() - 0.1) <= 0.02


def test_several_labels_are_all_seen():
    rows = [{"text": f"text {i}", "label": ["a", "b"] if i % 2 else ["a"]} for i in range(30)]
    rows[7]["label"] = ["a", "rare"]
    for number in (1, 2, 3):
        source = read(rows, fold=(number, 3), **OPTIONS)
        assert "text 7" not in texts(source.test)
    source = read(rows, share=0.1, **OPTIONS)
    seen = {each for labels in source.train.column("label") for each in labels}
    held = texts(source.dev) + texts(source.test)
    assert seen == ({"a", "b"} if "text 7" in held else {"a", "b", "rare"})


def test_too_few_rows_for_folds():
    with pytest.raises(DataError, match="cannot be divided into 9 folds"):
        read(ROWS[:12], fold=(1, 9), **OPTIONS)
