"""BLEU (Papineni et al. 2002) and chrF (Popović 2015) of translations and their references, as
functions of the weight of each segment.

Both are computed by `sacrebleu` (Post 2018, arXiv:1804.08771), whose signatures describe how. The
score of a corpus is a function of sums over its segments, so that a resample needs only those sums.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langue.errors import LangueError
from langue.statistics.metrics import Measure
from langue.text.quality import script

METRICS = ("bleu", "chrf")
USUAL = "13a"  # the tokenizer of languages with spaces


class TranslationScores:
    """The sufficient statistics of both metrics for each segment."""

    def __init__(
        self,
        written: Sequence[str],
        references: Sequence[Sequence[str]],
        tokenize: str | None = None,
    ) -> None:
        """references: one or more for each of the N texts. tokenize: the tokenizer of BLEU; None:
        chosen by the script of the references.
        """
        sacrebleu = _sacrebleu()
        text = "".join(texts[0] for texts in references)
        self._bleu = sacrebleu.BLEU(tokenize=tokenize or tokenizer_of(text))
        self._chrf = sacrebleu.CHRF()
        most = max(map(len, references), default=1)
        # reference k of all texts; sacrebleu ignores None
        streams = [[_at(texts, k) for texts in references] for k in range(most)]
        hypotheses = list(written)
        counted = (
            metric._extract_corpus_statistics(hypotheses, streams)
            for metric in (self._bleu, self._chrf)
        )
        self._of_bleu, self._of_chrf = (np.asarray(each, np.float64) for each in counted)

    @property
    def signatures(self) -> dict[str, str]:
        """The signature of each metric, as reported in papers."""
        found = {"bleu": self._bleu.get_signature(), "chrf": self._chrf.get_signature()}
        return {name: str(signature) for name, signature in found.items()}

    @property
    def measure(self) -> Measure:
        """The measure of both metrics, on a scale of 100."""

        def measure(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
            bleu = self._of_bleu.T @ weights  # (counts, R)
            chrf = self._of_chrf.T @ weights
            return {
                "bleu": np.asarray([self._bleu_of(column) for column in bleu.T]),
                "chrf": np.asarray([self._chrf_of(column) for column in chrf.T]),
            }

        return measure

    def _bleu_of(self, sums: NDArray[np.float64]) -> float:
        counts = [round(number) for number in sums.tolist()]
        return float(self._bleu._compute_score_from_stats(counts).score)

    def _chrf_of(self, sums: NDArray[np.float64]) -> float:
        counts = [round(number) for number in sums.tolist()]
        return float(self._chrf._compute_f_score(counts))


def tokenizer_of(text: str) -> str:
    """Return the tokenizer of BLEU for targets like this text.

    The one for Japanese needs MeCab; without it, and in other scripts without spaces, characters
    are the tokens.
    """
    language = script.language(script.count(text))
    if language == "Chinese":
        return "zh"
    if language == "Japanese" and find_spec("MeCab") and find_spec("ipadic"):
        return "ja-mecab"
    return "char" if script.mostly_unspaced(text) else USUAL


def check_installed() -> None:
    """Raise LangueError if sacrebleu is not installed."""
    _sacrebleu()


def _sacrebleu() -> Any:
    try:
        from sacrebleu import metrics
    except ImportError as error:
        raise LangueError(
            "BLEU and chrF are computed by sacrebleu, which is not installed",
            do="pip install 'langue[text2text]'",
        ) from error
    return metrics


def _at(texts: Sequence[str], index: int) -> str | None:
    return texts[index] if index < len(texts) else None
