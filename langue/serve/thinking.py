"""Reasoning in answers: takes the text of an answer by a model whose chat template marks its
reasoning; returns reasoning and answer separately, also while the text is streamed.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

# of DeepSeek-R1, Qwen 3 and others; of Magistral; of Seed-OSS
MARKS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"))


@dataclass(frozen=True)
class Parted:
    """An answer so far."""

    thought: str
    text: str
    thinks: bool = False  # reasoning has not ended


def marks_of(template: str | None, special: Collection[str] = ()) -> tuple[str, str] | None:
    """Return the marks that a template puts around reasoning; None if it has none.

    special: texts of special tokens, which are not part of answers, so that such marks never
    appear.
    """
    found = (pair for pair in MARKS if template is not None and pair[1] in template)
    return next((pair for pair in found if pair[1] not in special), None)


class Thinking:
    """Splits the answers of one call at the marks of its model's template."""

    def __init__(self, marks: tuple[str, str] | None) -> None:
        self.marks = marks
        self._begins_inside = False

    def begin(self, prompt: str) -> None:
        """Check whether the template has opened the reasoning at the end of the prompt."""
        if self.marks is not None:
            self._begins_inside = prompt.rstrip().endswith(self.marks[0])

    def end(self) -> None:
        """Treat everything as answer, because constrained answers contain no reasoning."""
        self.marks = None

    def part(self, text: str, is_whole: bool = True) -> Parted:
        """Return reasoning and answer; of a partial text, only what cannot change."""
        if self.marks is None:
            return Parted("", text)
        opening, closing = self.marks
        body = text
        bare = text.lstrip()
        if bare.startswith(opening):
            body = bare[len(opening) :]
        elif not self._begins_inside:
            waits = not is_whole and opening.startswith(bare)
            return Parted("", "" if waits else text, waits)
        thought, found, answer = body.partition(closing)
        if found:
            return Parted(thought.strip(), answer.lstrip())
        if not is_whole:
            thought = thought[: len(thought) - _partial_mark(thought, closing)]
        return Parted(thought.strip(), "", True)

    def count(self, tokens: Sequence[int], decode: Callable[[Sequence[int]], str]) -> int:
        """Return the number of an answer's tokens that belong to reasoning, including the marks."""
        if self.marks is None or not self.part(decode(tokens)).thought:
            return 0
        closing = self.marks[1]
        low, high = 0, len(tokens)
        while low < high:  # bisect for the shortest prefix that contains the closing mark, or all
            middle = (low + high) // 2
            if closing in decode(tokens[:middle]):
                high = middle
            else:
                low = middle + 1
        return low


def _partial_mark(text: str, mark: str) -> int:
    """Return the length of the longest suffix of the text that is a prefix of the mark."""
    longest = min(len(mark) - 1, len(text))
    sizes = (size for size in range(longest, 0, -1) if text.endswith(mark[:size]))
    return next(sizes, 0)
