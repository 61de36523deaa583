"""What a task calls its columns, and what people call them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from langue.text.read.table import TEXT_SYNONYMS as TEXT_SYNONYMS

PAIR_SYNONYMS = ("sentence2", "text_pair", "hypothesis", "question2")

# of texts that are compared, searched for or searched
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
    """The columns that a task reads. `target` is what it predicts: rows without a usable one can be
    dropped.
    """

    required: tuple[str, ...]
    target: str
    optional: tuple[str, ...] = ()
    proportional: bool = True  # splits that are carved keep the shares of the target's values
    # splits that are carved have rows of one value of this column, such as a context, together
    together: str | None = None
    # the required columns that a prediction is made from; None: all but the target
    needed_to_predict: tuple[str, ...] | None = None
    # what people call each, likeliest first: for the remedy alone, never taken by itself
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The required columns that a prediction is made from."""
        if self.needed_to_predict is not None:
            return self.needed_to_predict
        return tuple(name for name in self.required if name != self.target)
