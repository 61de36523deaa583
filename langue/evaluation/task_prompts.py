"""Renders the prompts and gold answers of a task file's rows, identical character for character to
those of `lm-evaluation-harness`.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

from langue.errors import DataError
from langue.evaluation.task_file import TaskFile
from langue.text.sandbox import TooLong, sandbox, written

SEED = 1234  # seed of the few-shot examples, as in the reference


@dataclass(frozen=True)
class Row:
    """A row, and its location for error messages."""

    values: Mapping[str, Any]
    where: str


@dataclass(frozen=True)
class Question:
    """The requests for one row, of one output type, and its gold answer.

    requests: (context, continuation) of each choice; for whole texts and for generation, the text
    alone with an empty other part. without_context: the unconditional request for each choice, if
    those are needed.
    """

    requests: list[tuple[str, str]]
    gold: Any
    row: Row
    choices: list[str] | None = None
    without_context: tuple[tuple[str, str], ...] = ()


class Prompts:
    """Renders the questions of a task."""

    def __init__(self, task: TaskFile, columns: Sequence[str]) -> None:
        """columns: those of the rows; a string that equals a column's name is not a template."""
        self.task = task
        self.columns = frozenset(columns)
        self._compiled: dict[str, Any] = {}

    @cached_property
    def _environment(self) -> Any:
        from jinja2 import StrictUndefined

        environment = sandbox(undefined=StrictUndefined, keep_trailing_newline=True)

        def regex_replace(text: str, pattern: str, repl: str, count: int = 0) -> str:
            return re.sub(pattern, repl, text, count=count)

        environment.filters["regex_replace"] = regex_replace
        return environment

    def _rendered(self, template: str, key: str, row: Row) -> str:
        where = f"{self.task.file}: {key}, for {row.where}"
        try:
            if template not in self._compiled:
                self._compiled[template] = self._environment.from_string(template)
            return written(self._compiled[template], row.values)
        except TooLong as error:
            raise DataError(f"the template {error.what}", where=where) from None
        # a template is third-party code: any exception it raises is an error of the template
        except Exception as error:
            said = " ".join(str(error).split())[:200] or type(error).__name__
            there = ", ".join(sorted(map(str, row.values)))
            raise DataError(
                f"the template cannot be followed: {said}",
                where=where,
                do=f"correct it; the row has {there}",
            ) from error

    def _value(self, given: Any, key: str, row: Row) -> Any:
        """Return the value of a column, or the rendered template."""
        if not isinstance(given, str):
            return given
        if given not in self.columns:
            return self._rendered(given, key, row)
        if given not in row.values or row.values[given] is None:
            raise DataError(
                f"there is no {given} in the row, which {key} names",
                where=row.where,
                do="fill it in",
            )
        return row.values[given]

    def text(self, row: Row, given: str | int | None = None) -> str | int:
        """Return the question, or the index of the right choice if each choice has a question of
        its own.
        """
        found = self._value(self.task.doc_to_text if given is None else given, "doc_to_text", row)
        if isinstance(found, str) and found.isdigit() and self.task.doc_to_choice is not None:
            return int(found)
        if isinstance(found, str | int):
            return found
        raise _not("doc_to_text", found, "a text", row)

    def target(self, row: Row, given: Any = None) -> Any:
        """Return the gold answer: a text, the index of a choice, or a list of either."""
        given = self.task.doc_to_target if given is None else given
        found = self._value(given, "doc_to_target", row)
        written_out = isinstance(given, str) and given not in self.columns
        if not (isinstance(found, str) and written_out):
            return found
        if found.isdigit() and self.task.doc_to_choice is not None:
            return int(found)
        if len(found) >= 2 and found[0] == "[" and found[-1] == "]":
            listed = _literal(found)
            return found if listed is None else listed
        return found

    def choices(self, row: Row, given: Any = None) -> list[str]:
        given = self.task.doc_to_choice if given is None else given
        found = self._value(given, "doc_to_choice", row)
        if isinstance(found, dict):
            found = list(found.values())
        if isinstance(found, str):
            listed = _literal(found)
            found = found if listed is None else listed
        if isinstance(found, list | tuple) and found and all(isinstance(e, str) for e in found):
            return list(found)
        raise _not("doc_to_choice", found, "a list of texts", row)

    def _prefix(self, row: Row, given: str | None) -> str | None:
        return None if given is None else str(self._value(given, "gen_prefix", row))

    def context(self, row: Row, shots: Sequence[Row]) -> str | list[str]:
        """Return everything before the answer: description, few-shot examples with answers, and
        question.

        Returns a list if each choice has its own question.
        """
        task = self.task
        before = self._value(task.description, "description", row) if task.description else ""
        parts = [str(before)]
        parts += [self._example(shot) for shot in shots]
        question = self.text(row)
        prefix = self._prefix(row, task.gen_prefix)
        if isinstance(question, int) and task.doc_to_choice is not None:
            ends = [_turn(each, prefix, "") for each in self.choices(row)]
            return ["".join([*parts, end]) for end in ends]
        return "".join([*parts, _turn(str(question), prefix, task.target_delimiter)])

    def _example(self, row: Row) -> str:
        """Return a question with its answer."""
        own = self.task.fewshot
        question = self.text(row, own.doc_to_text)
        answer = self.target(row, own.doc_to_target)
        choices = self.choices(row, own.doc_to_choice) if own.doc_to_choice is not None else None
        prefix = self._prefix(row, own.gen_prefix)
        if isinstance(question, int):
            question = _chosen(choices, question, row)
            choices = None
        if answer is None or answer == "":
            return _turn(question, prefix, own.target_delimiter)
        if choices is not None and isinstance(answer, int):
            answer = _chosen(choices, answer, row)
        elif isinstance(answer, list) and answer:
            answer = answer[0]
        if not isinstance(answer, str):
            raise _not("doc_to_target", answer, "a text to be shown as an example", row)
        if prefix:
            begun = _turn(question, prefix, own.target_delimiter)
            apart = not (prefix[-1].isspace() or answer[0].isspace())
            return begun + (" " if apart else "") + answer + own.delimiter
        return question + own.target_delimiter + answer + own.delimiter

    def question(self, row: Row, shots: Sequence[Row], unconditional: bool = False) -> Question:
        """Return the question of a row; unconditional: also with the requests for each choice
        alone.
        """
        task = self.task
        kind = task.output_type
        gold = self.target(row)
        if kind == "loglikelihood_rolling":
            return Question([("", _text_of(gold, row))], gold, row)
        context = self.context(row, shots)
        if kind == "multiple_choice":
            return self._choice(row, context, gold, unconditional)
        if isinstance(context, list):
            raise _not("doc_to_text", task.doc_to_text, f"a text, as {kind} needs", row)
        if kind == "loglikelihood":
            return Question([(context, _text_of(gold, row))], gold, row)
        if task.doc_to_choice is not None:
            gold = _chosen(self.choices(row), gold, row)
        return Question([(context, "")], gold, row)

    def _choice(
        self, row: Row, context: str | list[str], gold: Any, unconditional: bool
    ) -> Question:
        choices = self.choices(row)
        delimiter = self.task.target_delimiter
        alone = tuple(("", f"{delimiter}{choice}") for choice in choices)
        if isinstance(context, list):
            requests = [(each, f"{delimiter}{gold}") for each in context]
            gold = self.text(row)
        else:
            requests = [(context, f"{delimiter}{choice}") for choice in choices]
        return Question(requests, gold, row, choices, alone if unconditional else ())


def _turn(question: str, prefix: str | None, delimiter: str) -> str:
    """Return the question, followed by the prefix of the answer."""
    if not prefix:
        return question
    apart = question != "" and not (question[-1].isspace() or prefix[0].isspace())
    return question + (delimiter if apart else "") + prefix


def _literal(text: str) -> Any:
    """Return the Python literal in a text, such as a list; None if it is not one."""
    try:
        found = ast.literal_eval(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return found


def _chosen(choices: list[str] | None, index: Any, row: Row) -> str:
    if choices is None or not isinstance(index, int) or not 0 <= index < len(choices):
        raise DataError(
            f"{index!r} is the number of no choice, of which there are {len(choices or ())}",
            where=row.where,
            do="number choices from 0",
        )
    return choices[index]


def _text_of(gold: Any, row: Row) -> str:
    if not isinstance(gold, str):
        raise _not("doc_to_target", gold, "a text", row)
    return gold


def _not(key: str, found: Any, kind: str, row: Row) -> DataError:
    shown = repr(found)
    there = ", ".join(sorted(map(str, row.values)))
    return DataError(
        f"{key} gives {shown[:100]}, which is not {kind}",
        where=row.where,
        do=f"correct {key}; the row has {there}",
    )


class Shots:
    """Draws the few-shot examples of each question in the same way as the reference: anew for each
    question, from one random generator.
    """

    def __init__(
        self, task: TaskFile, pool: Sequence[Row], count: int, same: bool, seed: int = SEED
    ) -> None:
        """same: whether the questions are from the pool, so that a question must not be its own
        example.
        """
        self.count = count
        self.same = same
        self.first = task.fewshot.sampler == "first_n"
        self.random = Random(seed)
        self.pool = list(pool)
        if task.fewshot.indices and count and not self.first:
            wrong = [i for i in task.fewshot.indices if not 0 <= i < len(pool)]
            if wrong:
                raise DataError(
                    f"fewshot_indices names row {wrong[0]}, and there are {len(pool)}",
                    where=task.file,
                    do="number rows from 0",
                )
            self.pool = [pool[i] for i in task.fewshot.indices]
        need = count + (1 if same and not self.first else 0)
        if count and len(self.pool) < need:
            raise DataError(
                f"{count} examples are to be shown of {len(self.pool)} rows",
                where=task.file,
                do="give more rows, or a lower --few-shot",
            )

    def draw(self, row: Row) -> list[Row]:
        if not self.count:
            return []
        if self.first:
            found = (_others(self.pool, row) if self.same else self.pool)[: self.count]
        elif self.same:
            found = _others(self.random.sample(self.pool, self.count + 1), row)[: self.count]
        else:
            found = self.random.sample(self.pool, self.count)
        if len(found) < self.count:  # there are rows equal to the question
            left = _others(self.pool, row)
            if len(left) < self.count:
                raise DataError(
                    f"{self.count} examples are to be shown, and {len(left)} rows are not as this",
                    where=row.where,
                    do="give more rows, or a lower --few-shot",
                )
            found = self.random.sample(left, self.count)
        return found


def _others(rows: Sequence[Row], row: Row) -> list[Row]:
    return [each for each in rows if each.values != row.values]
