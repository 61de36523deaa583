"""The nearest sentence, against scikit-learn's TF-IDF."""

import random

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from langue.statistics.ngrams import tokens
from langue.statistics.sentences import NearestSentence, sentences
from tests.tiny import BAD, GOOD, PLAIN


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One is here. Two 3.5 is!  Three?", ["One is here.", "Two 3.5 is!", "Three?"]),
        ("北京很大。上海也大！是吗", ["北京很大。", "上海也大！", "是吗"]),
        ('He said "no." Then\nhe left', ['He said "no."', "Then", "he left"]),
        ("no end", ["no end"]),
        (" \n ", []),
    ],
)
def test_sentences_end_where_they_end(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in sentences(text)] == expected


def test_it_is_the_one_of_the_largest_cosine() -> None:
    generator = random.Random(0)
    words = [*GOOD, *BAD, *PLAIN]
    parts = [" ".join(generator.choices(words, k=generator.randint(2, 9))) for _ in range(60)]
    contexts = [". ".join(parts[first : first + 6]) + "." for first in range(0, 60, 6)]
    found = NearestSentence(contexts)
    split = [[text[a:b] for a, b in sentences(text)] for text in contexts]
    counter = CountVectorizer(analyzer=tokens)
    counts = counter.fit_transform([part for own in split for part in own])
    holding = np.asarray((counts > 0).sum(axis=0))[0]
    weights = np.log((1 + counts.shape[0]) / (1 + holding))
    for context, own in zip(contexts, split, strict=True):
        question = " ".join(generator.choices(words, k=4))
        asked = counter.transform([question]).toarray()[0] * weights
        rows = counter.transform(own).toarray() * weights
        cosines = rows @ asked / np.linalg.norm(rows, axis=1)
        start, end = found.find(question, context)
        assert cosines[own.index(context[start:end])] == pytest.approx(cosines.max())


def test_a_context_without_sentences_is_taken_whole() -> None:
    assert NearestSentence([" "]).find("what", " ") == (0, 1)
