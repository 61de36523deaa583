"""Scores of answers, against the rules of SQuAD's and CMRC's scripts written out the long way."""

import random
import re
import string

import numpy as np
import pytest

from langue.statistics.answers import _words, best_threshold, score

# --- the scripts' rules, a question at a time ---


def squad_words(text: str) -> list[str]:
    kept = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def squad(texts: list[str], said: str, version: int) -> tuple[float, float]:
    """One question of the scripts of SQuAD 1.1 and 2.0."""
    if version == 2:
        texts = [text for text in texts if squad_words(text)] or [""]
    exact = max(float(squad_words(text) == squad_words(said)) for text in texts)
    f1 = 0.0
    for text in texts:
        true = squad_words(text)
        own = squad_words(said)
        left = list(true)
        same = 0
        for word in own:
            if word in left:
                left.remove(word)
                same += 1
        if version == 2 and (not true or not own):
            f1 = max(f1, float(true == own))
        elif same:
            precision = same / len(own)
            recall = same / len(true)
            f1 = max(f1, 2 * precision * recall / (precision + recall))
    return exact, f1


SIGNS = set("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")


def cmrc_segments(text: str) -> list[str]:
    """Characters, and the words between them as NLTK's Treebank tokenizer gives them."""
    destructive = pytest.importorskip("nltk.tokenize.destructive")
    segments: list[str] = []
    between = ""
    for character in [*text.lower().strip(), None]:
        if character is not None and character in SIGNS:
            continue
        if character is not None and not "\u4e00" <= character <= "\u9fa5":
            between += character
            continue
        segments += destructive.NLTKWordTokenizer().tokenize(between)
        segments += [] if character is None else [character]
        between = ""
    return segments


def cmrc(texts: list[str], said: str) -> tuple[float, float]:
    def bare(text: str) -> str:
        return "".join(c for c in text.lower().strip() if c not in SIGNS)

    best = 0.0
    own = cmrc_segments(said)
    for text in texts:
        true = cmrc_segments(text)
        common = [
            size
            for size in range(1, min(len(true), len(own)) + 1)
            for i in range(len(true) - size + 1)
            for j in range(len(own) - size + 1)
            if true[i : i + size] == own[j : j + size]
        ]
        if common:
            precision = max(common) / len(own)
            recall = max(common) / len(true)
            best = max(best, 2 * precision * recall / (precision + recall))
    return float(any(bare(text) == bare(said) for text in texts)), best


# --- against them ---

BY_HAND = [
    (["Denver Broncos"], "the Denver Broncos!"),
    (["Denver Broncos", "Broncos"], "broncos"),
    (["in 1994"], "1994"),
    (["the cat sat on the mat"], "a cat, a mat"),
    (["U.S."], "US"),
    (["the"], "the"),
    (["the"], ""),
    (["a", "one"], "one"),
    (["x"], ""),
    (["twenty-one"], "twenty one"),
    (["to be or not to be"], "be be be"),
    (["Ünïcode  spaces\u00a0here"], "ünïcode spaces here"),
]
WORDS = ["the", "a", "cat", "Cat,", "sat", "on", "mat.", "42", "“no”", "an", "it's", "---"]


def drawn(generator: random.Random, words: list[str], between: str, most: int = 6) -> str:
    return between.join(generator.choices(words, k=generator.randint(0, most)))


def test_answers_are_scored_as_squad_1_1_scores_them() -> None:
    generator = random.Random(0)
    cases = list(BY_HAND)
    for _ in range(500):
        texts = [drawn(generator, WORDS, " ") for _ in range(generator.randint(1, 4))]
        cases.append((texts, drawn(generator, WORDS, " ")))
    found = score([texts for texts, _ in cases], [said for _, said in cases])
    expected = np.array([squad(texts, said, 1) for texts, said in cases])
    np.testing.assert_allclose(found.exact, expected[:, 0])
    np.testing.assert_allclose(found.f1, expected[:, 1], atol=1e-12)
    assert found.exact[5] == 1.0 and found.f1[5] == 0.0  # 1.1's, of an answer without words


def test_answers_are_scored_as_squad_2_0_scores_them() -> None:
    generator = random.Random(1)
    cases = [*BY_HAND, ([], ""), ([], "cat"), ([], "the")]
    for _ in range(500):
        texts = [drawn(generator, WORDS, " ") for _ in range(generator.randint(0, 3))]
        cases.append((texts, drawn(generator, WORDS, " ", generator.choice([0, 6]))))
    found = score([texts for texts, _ in cases], [said for _, said in cases])
    expected = np.array([squad(texts, said, 2) for texts, said in cases])
    np.testing.assert_allclose(found.exact, expected[:, 0])
    np.testing.assert_allclose(found.f1, expected[:, 1], atol=1e-12)
    assert found.f1[5] == found.exact[5] == 1.0


def test_chinese_answers_are_scored_as_cmrc_scores_them() -> None:
    generator = random.Random(2)
    pieces = [
        *"北京大学，。《年》的",
        "1998",
        "3.5%",
        "(NBA)",
        " ",
        "E.T.",
        "U2",
        "“",
        "-",
        "1,000",
    ]
    cases = [
        (["北京大学", "北大"], "北京大学。"),
        (["《三国演义》"], "三国演义"),
        (["1998年5月"], "1998年"),
        (["约翰·史密斯"], "约翰史密斯"),
        (["NBA总冠军"], "nba冠军"),
    ]
    for _ in range(500):
        texts = ["北京" + drawn(generator, pieces, "") for _ in range(generator.randint(1, 3))]
        cases.append((texts, drawn(generator, pieces, "", 9)))
    found = score([texts for texts, _ in cases], [said for _, said in cases])
    expected = np.array([cmrc(texts, said) for texts, said in cases])
    np.testing.assert_allclose(found.exact, expected[:, 0])
    np.testing.assert_allclose(found.f1, expected[:, 1], atol=1e-12)
    assert found.f1[2] == pytest.approx(2 / 3)


def test_words_between_characters_are_those_of_the_treebank() -> None:
    destructive = pytest.importorskip("nltk.tokenize.destructive")
    tokenizer = destructive.NLTKWordTokenizer()
    runs = ["$4.2", "60%", "roy h. reinhart", "(1840", '"r. graveolens"', "1.", "2008–09", "don't"]
    runs += ["<br>※", "wow! eye", "0.80%", "mk 1, ", "12:30 am", "o'neill's", "...", "a; b", "-"]
    for run in runs:
        found = ["''" if word == '"' else word for word in _words(run)]
        assert found == tokenizer.tokenize(run), run


def test_japanese_answers_are_divided_into_characters() -> None:
    found = score([["ソニーの製品", "東京"]], ["ソニー"])
    assert found.f1[0] == pytest.approx(2 * 3 / 9)


def test_nothing_is_said_of_no_questions() -> None:
    found = score([], [])
    assert found.exact.shape == found.f1.shape == (0,)


# --- the threshold ---


def squad_threshold(scores, odds, answerable) -> float:
    """The best mean score that any threshold reaches, one at a time."""
    best = 0.0
    for threshold in [min(odds) - 1, *odds]:
        given = odds <= threshold
        total = np.where(given, np.where(answerable, scores, 0.0), ~answerable).sum()
        best = max(best, total)
    return best


def test_no_threshold_is_better_than_the_one_that_is_found() -> None:
    random_ = np.random.default_rng(0)
    for size in (1, 2, 5, 40):
        for _ in range(50):
            scores = random_.random(size)
            odds = np.round(random_.normal(size=size), int(random_.integers(0, 3)))
            answerable = random_.random(size) < 0.6
            found = best_threshold(scores, odds, answerable)
            given = odds <= found
            total = np.where(given, np.where(answerable, scores, 0.0), ~answerable).sum()
            assert total == pytest.approx(squad_threshold(scores, odds, answerable))
    assert best_threshold(np.zeros(0), np.zeros(0), np.zeros(0, bool)) == 0.0
    sides = np.array([-9.0, -8.0, 4.0])
    assert best_threshold(np.ones(3), sides, np.array([True, True, False])) == 0.0
    assert best_threshold(np.ones(3), sides - 5, np.array([True, True, False])) == -7.0
