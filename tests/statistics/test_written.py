"""ROUGE, BLEU and chrF beside their official implementations."""

import random

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from langue.statistics import rouge, translation

WORDS = ["a", "the", "cat", "sat", "on", ",", "!", "run's", "U.S.", "3.5", "über", "Don't", "x-ray"]
SCRIPTS = {
    "English": "The cat sat on the mat, didn't it?",
    "German": "Über den Wolken größer als Österreich.",
    "Chinese": "证监会高层称暂不具备推行注册制条件",
    "Japanese": "東京は日本の首都です。",
    "Russian": "Съешь же ещё этих мягких булок",
    "Arabic": "نص حكيم له سر قاطع",
    "Thai": "เป็นมนุษย์สุดประเสริฐ",
    "Korean": "모든 인간은 태어날 때부터",
}


def drawn(n: int, seed: int) -> tuple[list[str], list[list[str]]]:
    """Texts and one to three references of each: empty ones, equal ones, ties."""
    generator = random.Random(seed)

    def text() -> str:
        return " ".join(generator.choices(WORDS, k=generator.choice([0, 1, 2, 5, 12])))

    written = [text() for _ in range(n)]
    references = [[text() for _ in range(generator.choice([1, 1, 3]))] for _ in range(n)]
    for row in range(0, n, 7):
        references[row][0] = written[row]
    return written, references


class Cut:
    """A tokenizer for `rouge-score`."""

    def __init__(self, tokenize) -> None:
        self.tokenize = tokenize


@pytest.mark.parametrize("tokenize", [rouge.english_tokens, rouge.word_tokens])
def test_rouge_is_that_of_rouge_score(tokenize, monkeypatch) -> None:
    monkeypatch.setattr(rouge, "tokenizer_for", lambda text: tokenize)
    own = {} if tokenize is rouge.english_tokens else {"tokenizer": Cut(tokenize)}
    scorer = RougeScorer(list(rouge.METRICS), **own)
    written, references = drawn(200, 0)
    found = rouge.scores(written, references)
    for row, (text, texts) in enumerate(zip(written, references, strict=True)):
        expected = scorer.score_multi(texts, text)
        values = [100 * expected[name].fmeasure for name in rouge.METRICS]
        assert found[row] == pytest.approx(values, abs=1e-9)


def test_a_subsequence_is_as_long_as_the_table_says() -> None:
    generator = random.Random(1)
    for _ in range(200):
        one, other = (generator.choices("abc", k=generator.randrange(9)) for _ in range(2))
        table = np.zeros((len(one) + 1, len(other) + 1), int)
        for i, a in enumerate(one):
            for j, b in enumerate(other):
                longer = max(table[i, j + 1], table[i + 1, j])
                table[i + 1, j + 1] = table[i, j] + 1 if a == b else longer
        assert rouge.longest_common_subsequence(one, other) == table[-1, -1]


@pytest.mark.parametrize("language", SCRIPTS)
def test_a_reference_against_itself_is_perfect_in_every_script(language: str) -> None:
    text = SCRIPTS[language]
    assert rouge.scores([text], [[text]]).tolist() == [[100.0] * 3]
    measured = translation.TranslationScores([text], [[text]]).measure(np.ones((1, 1)))
    assert measured["bleu"][0] == pytest.approx(100) and measured["chrf"][0] == pytest.approx(100)


def test_bleu_takes_its_words_from_the_script_of_the_target() -> None:
    chosen = {name: translation.tokenizer_of(text) for name, text in SCRIPTS.items()}
    assert chosen["English"] == chosen["Russian"] == chosen["Korean"] == "13a"
    assert chosen["Chinese"] == "zh" and chosen["Thai"] == "char"
    scores = translation.TranslationScores(["我是"], [["我是猫"]])
    assert "tok:zh" in scores.signatures["bleu"] and "version" in scores.signatures["chrf"]


def test_bleu_and_chrf_are_those_of_sacrebleu() -> None:
    written, references = drawn(200, 2)
    measure = translation.TranslationScores(written, references).measure
    generator = np.random.default_rng(0)
    weights = generator.multinomial(200, np.full(200, 1 / 200), size=4).T.astype(float)
    weights[:, 0] = 1
    found = measure(weights)
    for column in range(weights.shape[1]):
        rows = np.repeat(np.arange(200), weights[:, column].astype(int))
        own = [written[row] for row in rows]
        streams = [
            [refs[k] if k < len(refs) else None for refs in (references[row] for row in rows)]
            for k in range(3)
        ]
        assert found["bleu"][column] == pytest.approx(
            sacrebleu.corpus_bleu(own, streams).score, abs=1e-9
        )
        assert found["chrf"][column] == pytest.approx(
            sacrebleu.corpus_chrf(own, streams).score, abs=1e-9
        )
