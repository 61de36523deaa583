"""What arrives: the answers that are true of a question and the one that was given. What leaves:
how well it matches, as the scripts of SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016, 2018) and of CMRC
2018 (Cui et al. 2019) score it.

SQuAD compares words without case, punctuation and articles, and F1 is of the words that two answers
share. CMRC compares Chinese characters and the words between them without punctuation, and F1 is of
the longest run that two answers share. Both take the best over the true answers.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langue.text.quality import script

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
# What CMRC's script leaves out. It also names an ellipsis of two characters, which no single
# character equals, so that it leaves none out; and nothing of ASCII's brackets and full stops.
_CHINESE_PUNCTUATION = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_HAN = "\u4e00-\u9fa5"
# The text between characters is divided as the Penn Treebank is: these signs are words of their
# own, commas and colons where no digit follows, and the ends of contractions.
_SIGN = r";@#$%&?!()\[\]{}<>\"—–‘"
_PIECE = re.compile(rf"\.{{2,}}|--|[{_SIGN}]|[,:](?!\d)|(?:(?!\.{{2}})[^\s{_SIGN},:]|[,:](?=\d))+")
_CONTRACTION = re.compile(r"(.*?[^'])(n't|'s|'m|'d|'ll|'re|'ve|')$")
_FULL_STOP = re.compile(r"(?<=[^.])\.(?=[\])}>\"']*\s*$)")
_OPENING = re.compile(r"(?:^|(?<=[\s(\[{<]))\"+")


@dataclass(frozen=True)
class Scores:
    """Of each of N questions, whether the answer is a true one, and its F1 with the nearest."""

    exact: NDArray[np.float64]  # (N,) 0 or 1
    f1: NDArray[np.float64]  # (N,)


def score(true: Sequence[Sequence[str]], given: Sequence[str]) -> Scores:
    """The scores of answers given (N,) to questions with these true ones; "": that there is none.

    A question without true answers is one that cannot be answered. Where there is one, all are
    scored by SQuAD 2.0's rules, else by 1.1's, which differ in answers without words. Answers in
    scripts that write no spaces are scored as CMRC's.
    """
    whole = "".join(text for texts in true for text in texts)
    if script.mostly_unspaced(whole):
        characters = _HAN if script.language(script.count(whole)) == "Chinese" else script.UNSPACED
        rule = _Characters(characters)
        scored = [rule.of(texts or [""], answer) for texts, answer in zip(true, given, strict=True)]
    else:
        of_question = _squad2 if any(not texts for texts in true) else _squad1
        scored = [of_question(texts, answer) for texts, answer in zip(true, given, strict=True)]
    array = np.asarray(scored, np.float64).reshape(-1, 2)
    return Scores(array[:, 0], array[:, 1])


def normalised(text: str) -> str:
    """A text as SQuAD compares it: lower case, no punctuation, no articles, single blanks."""
    lowered = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", lowered).split())


def best_threshold(
    scores: NDArray[np.float64], odds: NDArray[np.float64], answerable: NDArray[np.bool_]
) -> float:
    """The odds over which no answer is given where the mean score is best, which SQuAD 2.0's script
    finds too; all arguments (N,).

    scores: of the answer to each question, were it given; odds: how much likelier it is that there
    is none. A question that cannot be answered counts 1 where no answer is given. Of the thresholds
    with the best mean the script takes the lowest; this is the one nearest to 0, midway between two
    questions' odds unless it is 0.
    """
    if not len(odds):
        return 0.0
    order = np.argsort(odds, kind="stable")
    ordered = odds[order]
    gains = np.where(answerable, scores, -1.0)[order]  # of giving an answer after all
    total = np.concatenate([[0.0], np.cumsum(gains)])  # where the first so many are answered
    lower = np.concatenate([[ordered[0] - 2.0], ordered])
    upper = np.concatenate([ordered, [ordered[-1] + 2.0]])
    middle = np.where((lower <= 0) & (upper > 0), 0.0, (lower + upper) / 2)
    total[lower == upper] = -np.inf  # questions of equal odds are answered together
    best = np.flatnonzero(total >= total.max() - 1e-9)
    return float(middle[best[np.argmin(np.abs(middle[best]))]])


def _squad1(texts: Sequence[str], answer: str) -> tuple[float, float]:
    said = normalised(answer)
    true = [normalised(text) for text in texts]
    return float(said in true), max(_shared_words(text, said) for text in true)


def _squad2(texts: Sequence[str], answer: str) -> tuple[float, float]:
    said = normalised(answer)
    # an answer without words is none; a question without answers has none as its answer
    true = [text for text in map(normalised, texts) if text] or [""]
    f1 = max(_shared_words(text, said) if text and said else float(text == said) for text in true)
    return float(said in true), f1


def _shared_words(true: str, said: str) -> float:
    """F1 of the words of two normalised texts."""
    words = true.split()
    own = said.split()
    shared = (Counter(words) & Counter(own)).total()
    return 2 * shared / (len(words) + len(own)) if shared else 0.0


class _Characters:
    """CMRC's rules. characters: those that are words, as a class of a regular expression."""

    def __init__(self, characters: str) -> None:
        self._run = re.compile(rf"[{characters}]|[^{characters}]+")
        self._character = re.compile(rf"[{characters}]")

    def of(self, texts: Sequence[str], answer: str) -> tuple[float, float]:
        said = _bare(answer)
        segments = self.segments(answer)
        exact = any(_bare(text) == said for text in texts)
        f1 = max(_shared_run(self.segments(text), segments) for text in texts)
        # that there is no answer, which CMRC's data does not have
        return float(exact), 1.0 if not said and "" in texts else f1

    def segments(self, text: str) -> list[str]:
        """Characters, and the words between them."""
        found: list[str] = []
        for run in self._run.findall(_bare(text)):
            found += [run] if self._character.match(run) else _words(run)
        return found


def _bare(text: str) -> str:
    return text.lower().strip().translate(_CHINESE_PUNCTUATION)


def _shared_run(true: list[str], said: list[str]) -> float:
    """F1 of the longest run of segments that both have."""
    longest = 0
    before = [0] * (len(said) + 1)
    for segment in true:
        lengths = [0] * (len(said) + 1)
        for place, other in enumerate(said):
            if segment == other:
                lengths[place + 1] = before[place] + 1
        longest = max(longest, *lengths)
        before = lengths
    return 2 * longest / (len(true) + len(said)) if longest else 0.0


def _words(run: str) -> list[str]:
    """The words of a text without characters that are words."""
    opened = _OPENING.sub(lambda marks: " `` " * len(marks[0]), run)
    divided = _FULL_STOP.sub(" . ", opened)
    found: list[str] = []
    for piece in _PIECE.findall(divided):
        parts = _CONTRACTION.match(piece)
        found += [piece] if parts is None else parts.groups()
    return found
