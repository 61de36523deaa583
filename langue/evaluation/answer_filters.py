"""Filters that extract the answer from a model's output, as task files name them.

They take one or several outputs for a question. Each filter behaves like the one of the same name
in `lm-evaluation-harness`.
"""

import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from langue.errors import DataError

Answers = list[Any]
FALLBACK = "[invalid]"
FIRST = r"#### (\-?[0-9\.\,]+)"  # the answer format of GSM8K


def take_first(answers: Answers, doc: Mapping[str, Any]) -> Answers:
    """Return only the first answer."""
    return answers[:1]


def take_first_k(answers: Answers, doc: Mapping[str, Any], k: int) -> Answers:
    """Return the first k answers; raise DataError if there are fewer."""
    if len(answers) < k:
        raise DataError(
            f"take_first_k needs {k} answers, and there are {len(answers)}",
            do=f"write repeats: {k}, or more",
        )
    return answers[:k]


def majority_vote(answers: Answers, doc: Mapping[str, Any]) -> Answers:
    """Return the most frequent answer, or the first of several equally frequent ones."""
    return [Counter(answers).most_common(1)[0][0]]


def lowercase(answers: Answers, doc: Mapping[str, Any]) -> Answers:
    return [str(answer).lower() for answer in answers]


def uppercase(answers: Answers, doc: Mapping[str, Any]) -> Answers:
    return [str(answer).upper() for answer in answers]


def remove_whitespace(answers: Answers, doc: Mapping[str, Any]) -> Answers:
    """Strip whitespace at both ends."""
    return [str(answer).strip() for answer in answers]


def replace_by(
    answers: Answers,
    doc: Mapping[str, Any],
    mapping_dict: Mapping[Any, Any],
    default_value: Any = None,
) -> Answers:
    """Map each answer through a table."""
    return [mapping_dict.get(answer, default_value) for answer in answers]


def regex(
    answers: Answers,
    doc: Mapping[str, Any],
    regex_pattern: str = FIRST,
    group_select: int = 0,
    fallback: str = FALLBACK,
) -> Answers:
    """Return the match of a pattern in each answer, by default the first."""
    return [_found(regex_pattern, answer, group_select) or fallback for answer in answers]


def multi_choice_regex(
    answers: Answers,
    doc: Mapping[str, Any],
    regex_pattern: str = FIRST,
    group_select: int = 0,
    fallback: str = FALLBACK,
    ignore_case: bool = False,
    ignore_punctuation: bool = False,
    regexes_to_ignore: Sequence[str] = (),
) -> Answers:
    """Return the letter of a choice, as `(A)`: found by the pattern, by the text of the choice, or
    after a colon.
    """

    def bare(text: str) -> str:
        for pattern in regexes_to_ignore:
            text = re.sub(pattern, "", text)
        text = text.lower() if ignore_case else text
        return text.translate(_punctuation()) if ignore_punctuation else text

    choices = [bare(str(choice).strip()) for choice in doc.get("choices", [])]
    letters = [chr(ord("A") + index) for index in range(len(choices))]
    by_words = {choice: f"({letter})" for choice, letter in zip(choices, letters, strict=True)}
    words = "|".join(sorted(map(re.escape, choices), key=len, reverse=True))
    made = []
    for answer in answers:
        found = _found(regex_pattern, answer, group_select)
        if not found and choices:
            match = _found(words, bare(str(answer)), group_select)
            found = by_words.get(match, match)
        if not found and choices:
            match = _found(rf":[\s]*({'|'.join(letters)})", answer, group_select)
            found = f"({match})" if match in letters else match
        made.append(found or fallback)
    return made


def _found(pattern: str, answer: Any, which: int) -> str:
    """Return the match with index `which`, or its first nonempty group; "" if there is none."""
    matches = re.findall(pattern, answer if isinstance(answer, str) else "")
    if not -len(matches) <= which < len(matches):
        return ""
    match = matches[which]
    if isinstance(match, tuple):
        match = next((each for each in match if each), "")
    return str(match).strip()


@cache
def _punctuation() -> dict[int, None]:
    every = range(sys.maxunicode)
    return dict.fromkeys(i for i in every if unicodedata.category(chr(i)).startswith("P"))


FILTERS: dict[str, tuple[Callable[..., Answers], tuple[str, ...]]] = {
    "take_first": (take_first, ()),
    "take_first_k": (take_first_k, ("k",)),
    "majority_vote": (majority_vote, ()),
    "lowercase": (lowercase, ()),
    "uppercase": (uppercase, ()),
    "remove_whitespace": (remove_whitespace, ()),
    "map": (replace_by, ("mapping_dict", "default_value")),
    "regex": (regex, ("regex_pattern", "group_select", "fallback")),
    "multi_choice_regex": (
        multi_choice_regex,
        (
            *("regex_pattern", "group_select", "fallback", "ignore_case", "ignore_punctuation"),
            "regexes_to_ignore",
        ),
    ),
}


def check_step(step: Mapping[str, Any], where: str) -> None:
    """Raise DataError if a step of a task file names an unknown filter or an unknown option."""
    name = step.get("function")
    if name not in FILTERS:
        raise DataError(
            f"the filter {name!r} is not known", where=where, do=f"use {', '.join(FILTERS)}"
        )
    taken = FILTERS[str(name)][1]
    if wrong := [key for key in step if key not in ("function", *taken)]:
        raise DataError(
            f"the filter {name} does not take {wrong[0]}",
            where=where,
            do=f"it takes {', '.join(taken) or 'nothing'}",
        )
    if name == "take_first_k" and (type(step.get("k")) is not int or step["k"] < 1):
        raise DataError(
            "take_first_k has no k", where=where, do="write k: 1, or another number up to repeats"
        )
    if name == "map" and not isinstance(step.get("mapping_dict"), dict):
        raise DataError("map has no mapping_dict", where=where, do="write mapping_dict: {A: B}")
    if type(step.get("group_select", 0)) is not int or not isinstance(
        step.get("fallback", ""), str
    ):
        raise DataError(
            f"group_select of {name} is no number, or fallback no text",
            where=where,
            do='write group_select: 0, or another number, and fallback: "none", or another text',
        )
    check_patterns([step.get("regex_pattern", "")], where)
    check_patterns(step.get("regexes_to_ignore") or [], where)


def check_patterns(patterns: Any, where: str) -> None:
    """Raise DataError if the argument is not a list of valid regular expressions."""
    if not isinstance(patterns, list):
        raise DataError("regexes_to_ignore is no list", where=where, do="write a list of patterns")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, TypeError, RecursionError) as error:
            raise DataError(
                f"{pattern!r} is no regular expression: {error}", where=where, do="correct it"
            ) from None


def filtered(
    answers: Answers, steps: Sequence[Mapping[str, Any]], doc: Mapping[str, Any]
) -> Answers:
    """Return the answers after applying all steps in order."""
    for step in steps:
        work = FILTERS[step["function"]][0]
        given = {key: value for key, value in step.items() if key != "function"}
        answers = work(answers, doc, **given)
    return answers


def exact_match(
    answer: str,
    gold: str,
    regexes_to_ignore: Sequence[str] = (),
    ignore_case: bool = False,
    ignore_punctuation: bool = False,
    ignore_numbers: bool = False,
) -> bool:
    """Return whether two texts are equal after removing what is to be ignored."""
    dropped = string.punctuation if ignore_punctuation else ""
    dropped += string.digits if ignore_numbers else ""

    def bare(text: str) -> str:
        for pattern in regexes_to_ignore or ():
            text = re.sub(pattern, "", text)
        text = text.lower() if ignore_case else text
        return text.translate(str.maketrans("", "", dropped))

    return bare(answer) == bare(gold)
