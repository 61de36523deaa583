"""Human evaluation: takes the answers of several systems to the same items; returns pairs of
answers for blind comparison, in a random order and on random sides for each rater, and stores the
votes.

A vote is a line of JSON: `{"item", "rater", "left", "right", "vote", "time"}`, where left and right
name the systems on these sides, and vote is left, right, tie or bad. It is on disk before the next
pair is shown.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langue.errors import DataError, LangueError, SettingsError
from langue.files import disk_errors, unreadable
from langue.progress import bar, say
from langue.statistics.votes import BAD, LEFT, RIGHT, TIE, VOTES, Vote

if TYPE_CHECKING:
    from langue.runs.model import Model

# The keys of a line that may hold a system's answer, and those that may hold the question; the
# first one present counts.
ANSWERS = (
    "text",
    "output",
    "answer",
    "response",
    "completion",
    "prediction",
    "generated_text",
    "translation_text",
    "summary_text",
)
QUESTIONS = ("prompt", "messages", "source", "question", "instruction", "document", "text")
KEYS = ("item", "rater", "left", "right", "vote")
JUDGED = {"1": LEFT, "2": RIGHT, "tie": TIE}
ASKED = """Two answers to the same task are given. Which is better?

Task:
{question}

Answer 1:
{left}

Answer 2:
{right}

Reply with 1, 2 or tie: """


@dataclass(frozen=True)
class Item:
    """An item to judge; name: its `id`, or its line number, from 1."""

    name: str | int
    question: str
    answers: Mapping[str, str]  # by system; a system that failed has none


@dataclass(frozen=True)
class Pair:
    """Two answers as a rater sees them."""

    item: Item
    left: str  # names of the systems
    right: str

    @property
    def texts(self) -> tuple[str, str]:
        return self.item.answers[self.left], self.item.answers[self.right]


def items_of(
    outputs: Mapping[str, Sequence[Mapping[str, Any]]],
    data: Sequence[Mapping[str, Any]] | None,
) -> list[Item]:
    """Return the items that at least two systems have answered.

    outputs: the lines of each system. data: the lines with the questions; None: the questions are
    in the outputs. Raises DataError if the numbers of lines differ, or two systems were asked
    different questions.
    """
    counts = {name: len(lines) for name, lines in outputs.items()}
    if data is not None:
        counts["--data"] = len(data)
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        raise DataError(
            f"the numbers of lines differ: {listed}",
            do="give files of the same items, in one order",
        )
    found = []
    failed = 0
    for number in range(next(iter(counts.values()))):
        answers: dict[str, str] = {}
        asked: dict[str, str] = {}
        for name, lines in outputs.items():
            line = lines[number]
            if "error" in line:
                failed += 1
                continue
            key = _key_of(line, f"{name}, line {number + 1}")
            answers[name] = str(line[key])
            asked[name] = question_of(line, but=key)
        _check_asked(asked, number)
        first = data[number] if data is not None else None
        question = (
            next((q for q in asked.values() if q), "") if first is None else (question_of(first))
        )
        named = (first or {}).get("id", number + 1)
        if len(answers) > 1:
            found.append(Item(named if isinstance(named, str) else number + 1, question, answers))
    if failed:
        say(f"{failed:,} answers are errors, and what they would be compared with is not shown")
    names = [item.name for item in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"the id {twice!r} stands twice", do="give each item an id of its own")
    if not found:
        raise DataError("no item was answered by two systems", do="look at the files of outputs")
    return found


def _key_of(line: Mapping[str, Any], where: str) -> str:
    for key in ANSWERS:
        if isinstance(line.get(key), str):
            return key
    raise DataError(
        f"there is no answer under {', '.join(ANSWERS[:4])} or the like",
        where=where,
        do='write {"text": "..."} on each line',
    )


def question_of(line: Mapping[str, Any], but: str = "") -> str:
    """Return the question in readable form; "" if the line has none.

    but: a key that holds the answer.
    """
    for key in QUESTIONS:
        value = line.get(key)
        if key == but or value is None:
            continue
        if isinstance(value, str):
            return value
        if key == "messages" and isinstance(value, Sequence):
            turns = [f"{turn.get('role', '')}: {turn.get('content', '')}" for turn in value]
            return "\n".join(turns)
    return ""


def _check_asked(asked: Mapping[str, str], number: int) -> None:
    """Raise DataError if two systems were asked different questions."""
    said = {name: question for name, question in asked.items() if question}
    if len(set(said.values())) > 1:
        first, second, *_ = said
        raise DataError(
            f"{first} and {second} do not answer the same",
            where=f"line {number + 1}",
            do="give files of the same items, in one order",
        )


def order_of(
    items: Sequence[Item],
    systems: Sequence[str],
    rater: str,
    seed: int,
    repeated: float = 0.0,
) -> list[Pair]:
    """Return all pairs of answers in a random order for the rater, where for any two systems each
    is on the left equally often (up to one).

    repeated: this fraction of the pairs is shown again at the end with sides swapped, to measure
    the rater's consistency.
    """
    digest = sha256(f"{seed}/{rater}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    pairs = []
    for first, second in combinations(systems, 2):
        both = [item for item in items if first in item.answers and second in item.answers]
        sides = generator.permutation(np.arange(len(both)) % 2)
        for item, side in zip(both, sides, strict=True):
            left, right = (first, second) if side else (second, first)
            pairs.append(Pair(item, left, right))
    order = [pairs[place] for place in generator.permutation(len(pairs))]
    again = generator.permutation(len(order))[: round(repeated * len(order))]
    return order + [Pair(order[i].item, order[i].right, order[i].left) for i in again]


# --- votes ---


def read_votes(path: str | Path) -> list[Vote]:
    """Return the votes of a file; DataError names an invalid line. An incomplete last line, from a
    killed process, is skipped with a message.
    """
    content = read_plain(path)
    lines = content.split("\n")
    if lines[-1]:
        say(f"{path}: the last line is cut off, and is not counted")
    found = []
    for number, line in enumerate(lines[:-1], 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except ValueError:
            raise DataError("not JSON", where=where, do="take the line out") from None
        if not isinstance(record, dict) or not set(KEYS) <= record.keys():
            raise DataError(f"a vote has {', '.join(KEYS)}", where=where, do="take the line out")
        if record["vote"] not in VOTES or record["left"] == record["right"]:
            raise DataError(
                f"no vote is {record['vote']!r} between {record['left']!r} and {record['right']!r}",
                where=where,
                do=f"take the line out; votes are {', '.join(VOTES)}",
            )
        found.append(Vote(*(record[key] for key in KEYS)))
    return found


def read_plain(path: str | Path) -> str:
    """Return the content of a text file; raise DataError if it cannot be read."""
    try:
        return Path(path).read_text("utf-8")
    except OSError as error:
        raise unreadable(error, path, DataError) from None
    except UnicodeDecodeError:
        raise DataError("it is not UTF-8", where=str(path), do="convert it") from None


class VotesFile:
    """Appends votes to a file; each is on disk when `add` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.votes: list[Vote] = read_votes(path) if path.exists() else []
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                whole = path.read_bytes()
                os.truncate(path, whole.rfind(b"\n") + 1)
            self.handle = path.open("ab")

    def add(self, vote: Vote) -> None:
        record = {key: getattr(vote, key) for key in KEYS} | {"time": round(time.time(), 3)}
        with disk_errors(self.path):
            self.handle.write(
                json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
            )
            self.handle.flush()
            os.fsync(self.handle.fileno())
        self.votes.append(vote)

    def close(self) -> None:
        self.handle.close()


class Ballot:
    """The pairs that one rater still has to judge, one after the other.

    Pairs of equal texts are not shown; they count as ties.
    """

    def __init__(self, pairs: Sequence[Pair], rater: str, file: VotesFile) -> None:
        self.rater = rater
        self.file = file
        self.pairs = pairs
        done = {(vote.item, vote.left, vote.right) for vote in file.votes if vote.rater == rater}
        self.equal = 0
        self.shown: list[Pair] = []
        for pair in pairs:
            if pair.texts[0].strip() != pair.texts[1].strip():
                self.shown.append(pair)
                continue
            self.equal += 1
            if (pair.item.name, pair.left, pair.right) not in done:
                file.add(Vote(pair.item.name, rater, pair.left, pair.right, TIE))
        self.place = 0
        while self.place < len(self.shown) and self._name(self.place) in done:
            self.place += 1

    def _name(self, place: int) -> tuple[str | int, str, str]:
        pair = self.shown[place]
        return pair.item.name, pair.left, pair.right

    @property
    def total(self) -> int:
        return len(self.shown)

    @property
    def current(self) -> Pair | None:
        """The pair to judge now; None: all are judged."""
        return self.shown[self.place] if self.place < self.total else None

    def vote(self, place: int, vote: str) -> bool:
        """Store a vote on the pair at `place`; return False if that is not the current pair, e.g.
        after a key was pressed twice.
        """
        if place != self.place or self.current is None or vote not in VOTES:
            return False
        self.file.add(Vote(self.current.item.name, self.rater, *self._name(place)[1:], vote))
        self.place += 1
        return True

    def back(self) -> None:
        """Go back to the previous pair; its later vote will count."""
        self.place = max(0, self.place - 1)


# --- a model as judge ---


def judge_pairs(
    model: "Model", pairs: Sequence[Pair], rater: str, file: VotesFile, asked: str = ASKED
) -> int:
    """Let a model vote on each pair in both orders, unless it already has; return and report how
    many it could not answer.

    asked: template with {question}, {left} and {right}.
    """
    for name in ("{left}", "{right}"):
        if name not in asked:
            raise SettingsError(
                f"the judge is not shown {name}", do="write {question}, {left} and {right} into it"
            )
    done = {(vote.item, vote.left, vote.right) for vote in file.votes if vote.rater == rater}
    both = []
    for pair in pairs:
        both.append(Pair(pair.item, pair.left, pair.right))
        both.append(Pair(pair.item, pair.right, pair.left))
    failed: list[LangueError] = []
    with bar("judging", len(both)) as advance:
        for pair in both:
            advance(1)
            if (pair.item.name, pair.left, pair.right) in done:
                continue
            is_equal = pair.texts[0].strip() == pair.texts[1].strip()
            try:
                vote = TIE if is_equal else _ask(model, pair, asked)
            except LangueError as error:
                failed.append(error)
                continue
            file.add(Vote(pair.item.name, rater, pair.left, pair.right, vote))
    if failed:
        if len(failed) == len(both):
            raise failed[0]
        say(f"{len(failed):,} of {len(both):,} pairs could not be judged, the first: {failed[0]}")
    return len(failed)


def _ask(model: "Model", pair: Pair, asked: str) -> str:
    left, right = pair.texts
    # in one pass, so that placeholders inside of the inserted texts are not replaced
    parts = {"{question}": pair.item.question, "{left}": left, "{right}": right}
    said = "".join(parts.get(piece, piece) for piece in _pieces(asked))
    prompt: Any = said
    if model.tokenizer.has_chat_template:
        prompt = [{"role": "user", "content": said}]
    answer = model.generate([prompt], choices=list(JUDGED))[0]
    return JUDGED.get(str(answer).strip(), BAD)


def _pieces(asked: str) -> Iterator[str]:
    """Yield the parts of a template: placeholders, and the text between them."""
    yield from re.split(r"(\{question\}|\{left\}|\{right\})", asked)
