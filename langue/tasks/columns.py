"""Names of the columns that tasks read, and the synonyms that data sets use for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from langue.text.read.table import TEXT_SYNONYMS as TEXT_SYNONYMS

PAIR_SYNONYMS = ("sentence2", "text_pair", "hypothesis", "question2")

# for texts that are compared, used as queries, or searched
COMPARED_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "text": ("anchor", "query", "question", *TEXT_SYNONYMS),
    "pair": (
        *("positive", "sentence2", "answer", "document", "passage", "response"),
        *("text_pair", "hypothesis", "question2", "context"),
    ),
    "score": ("label", "labels", "scores", "similarity", "similarity_score"),
    "negative": ("hard_negative", "sentence3"),
}


@dataclass(frozen=True)
class Columns:
    """The columns that a task reads.

    `target` is the column that the task predicts; rows without a usable target can be dropped.
    """

    required: tuple[str, ...]
    target: str
    optional: tuple[str, ...] = ()
    proportional: bool = True  # automatic splits are stratified by the target
    # automatic splits keep rows with the same value of this column together, e.g. the same context
    together: str | None = None
    # the required columns needed for prediction; None: all but the target
    needed_to_predict: tuple[str, ...] | None = None
    # common names of each column, most likely first: only suggested in error messages, never used
    # on their own
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The required columns that a prediction needs."""
        if self.needed_to_predict is not None:
            return self.needed_to_predict
        return tuple(name for name in self.required if name != self.target)
