"""Scores of extractive question answering, as computed by the scripts of SQuAD 1.1 and 2.0
(Rajpurkar et al. 2016, 2018) and of CMRC 2018 (Cui et al. 2019).

SQuAD compares words without case, punctuation and articles; its F1 counts the words that both
answers share. CMRC compares Chinese characters, and the words between them, without punctuation;
its F1 uses the longest common run of segments. Both take the maximum over the gold answers.
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
# The punctuation that CMRC's script removes. The script also lists an ellipsis of two characters,
# which never equals a single character, so that it is not removed; ASCII brackets and full stops
# are not listed.
_CHINESE_PUNCTUATION = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_HAN = "\u4e00-\u9fa5"
# The text between the characters is tokenized as in the Penn Treebank: these signs are separate
# tokens, and so are commas and colons unless a digit follows, and the endings of contractions.
_SIGN = r";@#$%&?!()\[\]{}<>\"—–‘"
_PIECE = re.compile(rf"\.{{2,}}|--|[{_SIGN}]|[,:](?!\d)|(?:(?!\.{{2}})[^\s{_SIGN},:]|[,:](?=\d))+")
_CONTRACTION = re.compile(r"(.*?[^'])(n't|'s|'m|'d|'ll|'re|'ve|')$")
_FULL_STOP = re.compile(r"(?<=[^.])\.(?=[\])}>\"']*\s*$)")
_OPENING = re.compile(r"(?:^|(?<=[\s(\[{<]))\"+")


@dataclass(frozen=True)
class Scores:
    """Whether the answer to each of N questions is a gold answer, and its F1 with the
    closest one.
    """

    exact: NDArray[np.float64]  # (N,) 0 or 1
    f1: NDArray[np.float64]  # (N,)


def score(true: Sequence[Sequence[str]], given: Sequence[str]) -> Scores:
    """Return the scores of the `given` answers (N,) to questions with the `true` answers; "" means
    that there is no answer.

    A question without gold answers is unanswerable. If there is one, all questions are scored by
    the rules of SQuAD 2.0, otherwise by those of 1.1, which differ for answers without words.
    Answers in scripts without spaces are scored by the rules of CMRC.
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
    """Return a text in the form that SQuAD compares: lower case, no punctuation, no articles,
    single spaces.
    """
    lowered = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", lowered).split())


def best_threshold(
    scores: NDArray[np.float64], odds: NDArray[np.float64], answerable: NDArray[np.bool_]
) -> float:
    """Return the odds above which no answer should be given, to maximise the mean score.

    All arguments have shape (N,). scores: the score of the answer to each question, if it were
    given. odds: how much likelier it is that there is no answer. An unanswerable question scores 1
    if no answer is given. The script of SQuAD 2.0 also searches for this threshold, and takes the
    lowest of the optimal ones; this function returns the one closest to 0, midway between the odds
    of two questions unless it is 0.
    """
    if not len(odds):
        return 0.0
    order = np.argsort(odds, kind="stable")
    ordered = odds[order]
    gains = np.where(answerable, scores, -1.0)[order]  # gain of giving the answer, over giving none
    # gain if the first 0, 1, ... N questions are answered
    total = np.concatenate([[0.0], np.cumsum(gains)])
    lower = np.concatenate([[ordered[0] - 2.0], ordered])
    upper = np.concatenate([ordered, [ordered[-1] + 2.0]])
    middle = np.where((lower <= 0) & (upper > 0), 0.0, (lower + upper) / 2)
    total[lower == upper] = -np.inf  # no threshold can separate questions with equal odds
    best = np.flatnonzero(total >= total.max() - 1e-9)
    return float(middle[best[np.argmin(np.abs(middle[best]))]])


def _squad1(texts: Sequence[str], answer: str) -> tuple[float, float]:
    said = normalised(answer)
    true = [normalised(text) for text in texts]
    return float(said in true), max(_shared_words(text, said) for text in true)


def _squad2(texts: Sequence[str], answer: str) -> tuple[float, float]:
    said = normalised(answer)
    # an answer without words means no answer, which is the right one for an unanswerable question
    true = [text for text in map(normalised, texts) if text] or [""]
    f1 = max(_shared_words(text, said) if text and said else float(text == said) for text in true)
    return float(said in true), f1


def _shared_words(true: str, said: str) -> float:
    """Return the F1 of the words of two normalised texts."""
    words = true.split()
    own = said.split()
    shared = (Counter(words) & Counter(own)).total()
    return 2 * shared / (len(words) + len(own)) if shared else 0.0


class _Characters:
    """The rules of CMRC.

    characters: those that are tokens by themselves, as a character class of a regular expression.
    """

    def __init__(self, characters: str) -> None:
        self._run = re.compile(rf"[{characters}]|[^{characters}]+")
        self._character = re.compile(rf"[{characters}]")

    def of(self, texts: Sequence[str], answer: str) -> tuple[float, float]:
        said = _bare(answer)
        segments = self.segments(answer)
        exact = any(_bare(text) == said for text in texts)
        f1 = max(_shared_run(self.segments(text), segments) for text in texts)
        # the case of no answer, which does not occur in the data of CMRC
        return float(exact), 1.0 if not said and "" in texts else f1

    def segments(self, text: str) -> list[str]:
        """Return the characters, and the words between them."""
        found: list[str] = []
        for run in self._run.findall(_bare(text)):
            found += [run] if self._character.match(run) else _words(run)
        return found


def _bare(text: str) -> str:
    return text.lower().strip().translate(_CHINESE_PUNCTUATION)


def _shared_run(true: list[str], said: list[str]) -> float:
    """Return the F1 of the longest common run of segments."""
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
    """Tokenize a text that contains none of the characters that are tokens by themselves."""
    opened = _OPENING.sub(lambda marks: " `` " * len(marks[0]), run)
    divided = _FULL_STOP.sub(" . ", opened)
    found: list[str] = []
    for piece in _PIECE.findall(divided):
        parts = _CONTRACTION.match(piece)
        found += [piece] if parts is None else parts.groups()
    return found
