"""The nearest-sentence baseline of extractive question answering: the sentence of a context that is
most similar to the question.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

from langue.statistics.ngrams import tokens

# A sentence ends with sentence punctuation before whitespace, with Chinese sentence punctuation, or
# at the end of its line.
_END = r"[.!?]+[\"'”’)\]]*(?=\s)|[。！？；]+[”’」』）]*|(?=\n)|$"
_SENTENCE = re.compile(rf"\S.*?(?:{_END})", re.DOTALL)


def sentences(text: str) -> list[tuple[int, int]]:
    """Return the character span of each sentence of a text, without the whitespace between them."""
    return [match.span() for match in _SENTENCE.finditer(text)]


class NearestSentence:
    """Finds sentences of contexts by the cosine of their TF-IDF vectors with that of a question."""

    def __init__(self, contexts: Sequence[str]) -> None:
        """contexts: all contexts of the questions; their sentences give the document
        frequencies.
        """
        self._spans = {context: sentences(context) for context in contexts}
        self._words = {
            context: [Counter(tokens(context[start:end])) for start, end in spans]
            for context, spans in self._spans.items()
        }
        holding: Counter[str] = Counter()
        for parts in self._words.values():
            for words in parts:
                holding.update(words.keys())
        count = sum(map(len, self._spans.values()))
        self._unseen = math.log(1 + count)
        self._weights = {word: math.log((1 + count) / (1 + n)) for word, n in holding.items()}
        self._norms = {
            context: [self._norm(words) for words in parts]
            for context, parts in self._words.items()
        }

    def find(self, question: str, context: str) -> tuple[int, int]:
        """Return the character span of the most similar sentence of one of the contexts; the first
        one, in case of a tie.
        """
        asked = {word: n * self._weight(word) ** 2 for word, n in Counter(tokens(question)).items()}
        best = (0, len(context))
        highest = -1.0
        parts = zip(self._spans[context], self._words[context], self._norms[context], strict=True)
        for span, words, norm in parts:
            shared = sum(weight * words[word] for word, weight in asked.items()) / norm
            if shared > highest:
                highest = shared
                best = span
        return best

    def _weight(self, word: str) -> float:
        return self._weights.get(word, self._unseen)

    def _norm(self, words: Counter[str]) -> float:
        return math.sqrt(sum((n * self._weight(word)) ** 2 for word, n in words.items())) or 1.0
