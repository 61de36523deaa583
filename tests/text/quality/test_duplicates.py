"""Copies are found, exactly those: the fast search against the obvious one."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from langue.text.quality import duplicates
from langue.text.quality.duplicates import find, within
from langue.text.read.source import read

WORDS = [f"word{i}" for i in range(400)]


def sentence(begin, length):
    return " ".join(WORDS[(begin * 7 + i * i + i) % 400] for i in range(length))


def slowly(train, test, near):
    """{test row: greatest similarity}, over all pairs."""

    def shingles(text):
        words = re.findall(r"\w+", text.casefold())
        return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))} if words else set()

    found = {}
    for row, text in enumerate(test):
        a = shingles(text)
        for b in map(shingles, train):
            if a and b:
                likeness = len(a & b) / len(a | b)
                if len(a) >= duplicates.CONTAINED_FROM:
                    likeness = max(likeness, len(a & b) / len(a))
                if likeness >= near:
                    found[row] = max(found.get(row, 0), round(likeness, 4))
    return found


def test_exact_after_normalisation():
    found = find(["Ｇｏｏｄ  film\n", "other"], ["good FILM", "good", "Other"])
    assert found.exact == [(0, 0), (2, 1)] and found.near == []


def test_near_by_change_and_by_containment():
    text = sentence(3, 60)
    changed = text.replace(WORDS[(21 + 2) % 400], "changed", 1)
    quoted = " ".join([sentence(50, 90), text, sentence(60, 90)])
    found = find([sentence(1, 60), quoted], [changed, text, sentence(2, 60)])
    assert [pair[:2] for pair in found.near] == [(0, 1), (1, 1)] and found.near[1][2] == 1.0
    assert find([text], [quoted]).near == []


def test_chinese_is_compared_by_characters():
    text = (
        "早餐非常简单和差，距离客房很远，需要到后面的附楼，或者通过弯弯曲曲的后勤走到，非常不方便。"
    )
    found = find(
        ["今天天气很好。", text],
        [text.replace("非常不方便", "不方便"), "酒店位于商业中心，交通便利。"],
    )
    assert [pair[:2] for pair in found.near] == [(0, 1)] and found.near[0][2] > 0.8


def test_texts_without_words():
    assert find(["", "!!!", "😀"], ["", "???", "😀", "x"]).exact == [(0, 0), (2, 2)]
    assert find([], ["a"]) == find(["a"], []) == within([]) == duplicates.Duplicates()


def test_within_names_each_later_copy_once():
    text = sentence(3, 60)
    found = within([text, "other", text.upper(), text + " more words", "other"])
    assert found.exact == [(2, 0), (4, 1)]
    assert [(a, b) for a, b, _ in found.near] == [(3, 0)]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_as_the_obvious_search(data):
    """Texts cut from few strands overlap often; chunks of a few texts; both ways of comparing."""
    strand = st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(0, 50))
    cut = strand.map(lambda s: " ".join(sentence(s[0], 80).split()[s[1] : s[1] + s[2]]))
    train = data.draw(st.lists(cut, max_size=12))
    test = data.draw(st.lists(cut, max_size=12))
    near = data.draw(st.sampled_from([0.5, 0.8, 1.0]))
    normal = duplicates.CHUNK
    duplicates.CHUNK = data.draw(st.sampled_from([30, 200, normal]))
    try:
        found = find(train, test, near)
        inside = within(test, near)
    finally:
        duplicates.CHUNK = normal
    exact = {row for row, _ in found.exact}
    expected = {row: value for row, value in slowly(train, test, near).items() if row not in exact}
    assert exact == {row for row, text in enumerate(test) if text in train}
    assert {row: value for row, _, value in found.near} == expected
    copies = {row for row, _ in inside.exact}
    for row in set(range(len(test))) - copies:
        best = slowly(test[:row], [test[row]], near).get(0)
        assert {a: value for a, _, value in inside.near}.get(row) == best


def test_real_reviews(shared_data):
    hotels = read(shared_data("chnsenticorp"), need=["text"])
    found = find(hotels.train.column("text"), hotels.test.column("text"))
    assert len({pair[0] for pair in (*found.exact, *found.near)}) == len(found.exact) + len(
        found.near
    )
    train = hotels.train.column("text")
    assert all(train[b].split() == hotels.test.column("text")[a].split() for a, b in found.exact)
