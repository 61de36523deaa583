"""Compilation of constraints: takes a JSON Schema, a regular expression, choices or a grammar;
returns a compiled llguidance grammar, or raises an error with the reason.

A short grammar may take minutes and gigabytes to compile, so all of this is first done in a process
that may be killed (grammar_worker.py), and only what succeeds there is compiled where it is used.
Imports neither torch nor anything that does.
"""

import json
import re
import warnings
from collections.abc import Sequence
from typing import Any

from langue.errors import ModelError
from langue.generation.schema import checked_schema, never_ends

FORMS = ("json_schema", "regex", "choices", "grammar")
MOST_SPACE = 16  # consecutive whitespace characters between the parts of a JSON text
_OPTIONS = '%llguidance {"no_forcing": true}\n'  # allow every token that can lead to a valid text
_SIMPLER = "make it simpler"


def lark_of(form: str, value: Any) -> str:
    """Return the constraint in llguidance's dialect of Lark; raise ModelError if it is malformed or
    asks for something unsupported.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        what = "it holds half a character, which no text does"
        raise ModelError(what, where=form, do="leave lone surrogates out") from None
    if form == "json_schema":
        return _OPTIONS + _of_schema(value)
    if form == "regex":
        return _OPTIONS + _of_regex(value)
    if form == "choices":
        return _OPTIONS + _of_choices(value)
    return _OPTIONS + _of_grammar(value)


def _of_schema(schema: Any) -> str:
    spaces = {"whitespace_pattern": f"[\\x20\\x0A\\x0D\\x09]{{0,{MOST_SPACE}}}"}
    checked = checked_schema(schema)
    if never_ends(checked):
        what = "no text is valid: each value holds another one of its kind, without an end"
        raise ModelError(what, where="json_schema", do="let the recursive part be left out")
    return f"start: %json {json.dumps(checked | {'x-guidance': spaces})}"


def _of_regex(regex: Any) -> str:
    from llguidance import regex_to_lark

    if not isinstance(regex, str):
        raise ModelError("it is no text", where="regex", do="give a regular expression")
    try:
        with warnings.catch_warnings():
            # for [a&&b] and similar, which mean something else in Rust
            warnings.simplefilter("error", FutureWarning)
            re.compile(regex)
    except (re.error, FutureWarning, OverflowError) as error:
        raise ModelError(one_line(str(error)), where="regex", do="write it otherwise") from None
    # "." and "[^a]" match one character; \d, \w and \s are as in JSON Schema
    return f"start: /{regex_to_lark(regex, 'dws')}/"


def _of_choices(choices: Any) -> str:
    if (
        not isinstance(choices, list | tuple)
        or not choices
        or not all(isinstance(each, str) for each in choices)
    ):
        raise ModelError(
            "it is no list of texts, or empty", where="choices", do='give ["yes", "no"]'
        )
    rule = "CHOICE?" if "" in choices else "CHOICE"
    texts = [json.dumps(each) for each in dict.fromkeys(choices) if each]
    if not texts:
        return 'start: ""'
    return f"start: {rule}\nCHOICE: {' | '.join(texts)}"


def _of_grammar(grammar: Any) -> str:
    if not isinstance(grammar, str) or "%llguidance" in grammar:
        raise ModelError(
            "it is no text, or sets options by %llguidance",
            where="grammar",
            do='give rules in llguidance\'s Lark, as \'start: "yes" | "no"\'',
        )
    return grammar


def vocabulary_of(tokens: Sequence[bytes]) -> Any:
    """Return the tokens as an llguidance tokenizer, with an end token of its own after them."""
    from llguidance import LLTokenizer, TokenizerWrapper

    class Wrapped:
        eos_token_id = len(tokens)
        bos_token_id = None
        special_token_ids = (len(tokens),)

        def __init__(self) -> None:
            self.tokens = [*tokens, b"<end>"]

        # only needed for forced text, which the grammars disable (`no_forcing`)
        def __call__(self, text: Any) -> list[int]:
            raise NotImplementedError("no text is forced, so none is cut into tokens")

    return LLTokenizer(TokenizerWrapper(Wrapped()))


def compile_grammar(vocabulary: Any, form: str, lark: str) -> Any:
    """Return a matcher that has computed its first mask; raise ModelError if it cannot."""
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(verbose_errors=False)
    matcher = LLMatcher(vocabulary, lark, log_level=0, limits=limits)
    if not matcher.is_error():
        matcher.compute_bitmask()
    if matcher.is_error():
        raise ModelError(one_line(matcher.get_error()), where=form, do="write it otherwise")
    return matcher


def one_line(why: str) -> str:
    """Return the message of a library on one line, without its drawing of the position."""
    if why.startswith("NoExtension"):
        return "no text is valid: it contradicts itself, never ends, or has no tokens to begin with"
    lines = [line.strip() for line in why.splitlines() if line.strip() and line[0] != "<"]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    found = (errors or lines or ["it cannot be compiled"])[0]
    return re.sub(r"^at \d+\(\d+\): (failed to compile JSON schema: )?", "", found)
