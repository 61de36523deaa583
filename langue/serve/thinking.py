"""What arrives: the text of an answer, by a model whose chat template marks what it thinks before
it answers. What leaves: the thought and the answer apart, while the text still comes.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

# by families: DeepSeek-R1, Qwen 3 and others; Magistral; Seed-OSS
MARKS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"))


@dataclass(frozen=True)
class Parted:
    """An answer as far as it has come."""

    thought: str
    text: str
    thinks: bool = False  # still, or until the end


def marks_of(template: str | None, special: Collection[str] = ()) -> tuple[str, str] | None:
    """What a template puts around thoughts; None where it marks none. special: texts of tokens that
    are left out of answers, so that marks among them are not seen.
    """
    found = (pair for pair in MARKS if template is not None and pair[1] in template)
    return next((pair for pair in found if pair[1] not in special), None)


class Thinking:
    """Parts the answers of one call by the marks of their model's template."""

    def __init__(self, marks: tuple[str, str] | None) -> None:
        self.marks = marks
        self._begins_inside = False

    def begin(self, prompt: str) -> None:
        """Look at the end of the prompt, where the template may have begun the thought."""
        if self.marks is not None:
            self._begins_inside = prompt.rstrip().endswith(self.marks[0])

    def end(self) -> None:
        """Of an answer that is held to a form, all is answer."""
        self.marks = None

    def part(self, text: str, is_whole: bool = True) -> Parted:
        """The two parts. Of a text that is not whole, only what stays so whatever follows."""
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
            thought = thought[: len(thought) - _begun(thought, closing)]
        return Parted(thought.strip(), "", True)

    def count(self, tokens: Sequence[int], decode: Callable[[Sequence[int]], str]) -> int:
        """How many of an answer's tokens are thought, the marks included."""
        if self.marks is None or not self.part(decode(tokens)).thought:
            return 0
        closing = self.marks[1]
        low, high = 0, len(tokens)
        while low < high:  # the fewest tokens that have the closing mark among them, or all
            middle = (low + high) // 2
            if closing in decode(tokens[:middle]):
                high = middle
            else:
                low = middle + 1
        return low


def _begun(text: str, mark: str) -> int:
    """Characters at a text's end with which the mark may begin."""
    longest = min(len(mark) - 1, len(text))
    sizes = (size for size in range(longest, 0, -1) if text.endswith(mark[:size]))
    return next(sizes, 0)
