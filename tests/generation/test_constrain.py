"""Constrained text is valid whenever it ends, whatever the model would like; and what cannot be
followed is refused in time."""

import json
import os
import random
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from langue.errors import ModelError
from langue.generation import constrain
from langue.generation.constrain import BUDGET, Grammars, _Trials
from langue.generation.text import TextStream
from langue.text.tokenizers.decoding import token_bytes
from tests import forked
from tests.tokenizer_kinds import MORE_KINDS, STORIES

pytest.importorskip("llguidance")
jsonschema = pytest.importorskip("jsonschema")

END = 0
CLOSING = set('"}]0123456789')


@pytest.fixture(scope="module", params=MORE_KINDS)
def kind(request):
    """A tokenizer with grammars, its end token (a special one or not) and more logits than
    tokens."""
    if request.param == "stories260K" and not STORIES.is_dir():
        pytest.skip(f"no {STORIES}: set LANGUE_DATA to the folder that has it")
    tokenizer = MORE_KINDS[request.param]()
    grammars = Grammars(tokenizer, len(tokenizer) + 3, frozenset([END]))
    yield tokenizer, grammars
    grammars.close()


@pytest.fixture(scope="module")
def grammars():
    tokenizer = MORE_KINDS["bytes in pieces"]()
    found = Grammars(tokenizer, len(tokenizer), frozenset([END]))
    yield found
    found.close()


def walk(tokenizer, constraint, draw, context=None, most=60):
    """Tokens drawn uniformly among the allowed ones, up to the end; after `most` of them those that
    close something. The text, or None where it does not end."""
    stream = TextStream(tokenizer, context)
    tokens = []
    for step in range(3 * most):
        allowed = constraint.allowed()
        assert allowed.shape == (len(tokenizer) + 3,) and allowed.any()
        ids = allowed.nonzero()[:, 0].tolist()
        closing = [token for token in ids if CLOSING & set(tokenizer.token(token) or "")]
        if step > most and END in ids:
            ids = [END]
        elif closing and (step > most or draw.random() < 0.3):
            ids = closing
        token = draw.choice(ids)
        constraint.accept(token)
        if token == END:
            break
        tokens.append(token)
        stream.add(token)
    else:
        return None
    stream.finish()
    assert constraint.is_finished
    return stream.text


OBJECT = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", 3, None]}, "maxItems": 3},
        "ok": {"type": "boolean"},
    },
    "required": ["name", "ok"],
    "additionalProperties": False,
}
SCHEMAS = {
    "object": OBJECT,
    "any": {},
    "true": True,
    "number": {"type": "number", "exclusiveMinimum": -2.5, "maximum": 10},
    "multiple": {"type": "integer", "multipleOf": 3, "minimum": 5, "maximum": 100},
    "text": {"type": "string", "pattern": "^[a-c]{2,4}$"},
    "unanchored": {"type": "string", "pattern": "ab", "maxLength": 8},
    "date": {"type": "string", "format": "date"},
    "several types": {"type": ["null", "integer", "string"], "maxLength": 3, "minimum": 7},
    "any of": {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "null"}}]},
    "one of": {"oneOf": [{"type": "string", "maxLength": 2}, {"type": "boolean"}]},
    "all of": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}]},
    "tuple": {
        **{"type": "array", "prefixItems": [{"type": "integer"}, {"const": "x"}]},
        **{"items": False, "minItems": 2},
    },
    "patterns": {
        **{"type": "object", "patternProperties": {"^n_": {"type": "integer"}}},
        **{"additionalProperties": {"type": "null"}, "maxProperties": 3},
    },
    "reference": {
        **{"$defs": {"point": {"type": "array", "items": {"type": "integer"}, "maxItems": 2}}},
        **{"type": "object", "properties": {"p": {"$ref": "#/$defs/point"}}, "required": ["p"]},
        "additionalProperties": False,
    },
    "recursive": {
        **{"$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}}},
        "$ref": "#/$defs/tree",
    },
    "const": {"const": {"a": [1, "é", None]}},
}


def can_write(tokenizer, text):
    """Whether every character is a token, in the middle of a text."""
    single = {raw for raw in token_bytes(tokenizer, len(tokenizer)).later if len(raw) == 1}
    return all(bytes([byte]) in single for byte in text.encode())


@pytest.mark.parametrize("name", SCHEMAS)
def test_walks_through_a_schema_are_valid(kind, name):
    tokenizer, grammars = kind
    draw = random.Random(name)
    schema = SCHEMAS[name]
    ended = 0
    for round_ in range(8):
        context = None if round_ % 2 else [5, 6]
        try:
            constraint = grammars.compile(json_schema=schema, context=context)
            text = walk(tokenizer, constraint, draw, context)
        except ModelError as error:
            # what the vocabulary cannot write
            assert not can_write(tokenizer, '"{}[]:,-0123456789nulltruefalseéx'), error
            continue
        if text is not None:
            ended += 1
            jsonschema.validate(json.loads(text), schema, jsonschema.Draft202012Validator)
            assert not re.search(r"[ \n\r\t]{17}", text)
    assert ended > 2 or not can_write(tokenizer, '"{}[]:,-0123456789nulltruefalseéx')


REGEXES = [
    r"[a-c]+ball",
    r"\d{3}-\d{2,4}",
    r"(the|a) (ball|b[au]t)( in (the|a) ball)*\.?",
    r"[^a-z\s]{1,5}",
    r"(?i:the) \w+",
    r"a?",
    r"(a*)*b",
    r"é|北京|🙂",
    r"/\"'\\ #",
    r"^anchored$",
]


@pytest.mark.parametrize("regex", REGEXES)
def test_walks_through_an_expression_match_it(kind, regex):
    tokenizer, grammars = kind
    draw = random.Random(regex)
    for round_ in range(8):
        context = None if round_ % 2 else [5, 6]
        try:
            constraint = grammars.compile(regex=regex, context=context)
            text = walk(tokenizer, constraint, draw, context)
        except ModelError as error:
            assert not can_write(tokenizer, "/\"'\\ #é北京🙂-.the"), error
            continue
        assert text is None or re.fullmatch(regex, text, re.ASCII), text


@pytest.mark.parametrize("choices", [["the", "ball", "a"], ["a", "ab", "abc", "a"], ["", "the."]])
def test_a_choice_is_one_of_them(kind, choices):
    tokenizer, grammars = kind
    draw = random.Random(0)
    seen = set()
    for round_ in range(40):
        context = None if round_ % 2 else [5, 6]
        try:
            constraint = grammars.compile(choices=choices, context=context)
            text = walk(tokenizer, constraint, draw, context)
        except ModelError as error:
            assert not can_write(tokenizer, "ab.the"), error
            continue
        assert text in choices
        seen.add(text)
    assert seen == set(choices) or not can_write(tokenizer, "ab.the")


def nested(depth):
    schema = {"type": "null"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def object_of(count):
    """A schema of an object with so many properties."""
    properties = {f"p{index}": {"type": "integer"} for index in range(count)}
    return {"type": "object", "properties": properties}


IMPOSSIBLE = {
    "itself": ({"json_schema": {"$ref": "#"}}, "no text is valid"),
    "without end": (
        {
            "json_schema": {
                **{"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
                "additionalProperties": False,
            }
        },
        "without an end",
    ),
    "contradiction": (
        {"json_schema": {"type": "integer", "minimum": 5, "maximum": 3}},
        "minimum .5. is greater than maximum .3.",
    ),
    "required and false": (
        {"json_schema": {"type": "object", "properties": {"a": False}, "required": ["a"]}},
        "required property 'a'",
    ),
    "no value": ({"json_schema": False}, "no value is valid"),
    "two bases": ({"json_schema": {"allOf": [{"$id": "/a/", "$ref": "b"}]}}, "beside a"),
    "no JSON": ({"json_schema": "{"}, "no JSON"),
    "no schema": ({"json_schema": [1]}, "no schema"),
    "too deep": ({"json_schema": nested(5000)}, "nested too deeply"),
    "deep": ({"json_schema": nested(500)}, "recursion limit"),
    "20,000 properties": ({"json_schema": object_of(20_000)}, "too large"),
    "half a character": ({"json_schema": {"const": "\ud800"}}, "half a character"),
    "look-ahead": ({"regex": "(?=a)b"}, "look-ahead"),
    "back reference": ({"regex": r"(a)\1"}, "backreferences"),
    "nothing matches": ({"regex": r"[^\s\S]"}, "no text is valid"),
    "not closed": ({"regex": "(a"}, "unterminated subpattern"),
    "other in Rust": ({"regex": "[a-c&&b]"}, "[Pp]ossible set"),
    "deep groups": ({"regex": "(" * 5000 + "a" + ")" * 5000}, "nested too deeply"),
    "no choice": ({"choices": []}, "choices"),
    "no texts": ({"choices": [1]}, "choices"),
    "one text": ({"choices": "yes"}, "choices"),
    "no rule": ({"grammar": "start: nothing"}, "unknown name"),
    "endless rule": ({"grammar": "start: a\na: a"}, "no text is valid"),
    "options": ({"grammar": '%llguidance {"no_forcing": false}\nstart: "a"'}, "options"),
    "too long": ({"regex": "a" * 5_000_000}, "bytes"),
    "not finite": ({"json_schema": {"minimum": float("inf")}}, "JSON"),
    "two": ({"regex": "a", "choices": ["a"]}, "exactly one"),
    "none": ({}, "exactly one"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_is_refused_in_time_and_the_next_one_compiles(grammars, name):
    given, said = IMPOSSIBLE[name]
    grammars.compile(regex="a")
    began = time.perf_counter()
    with pytest.raises(ModelError, match=said) as raised:
        grammars.compile(**given)
    # BUDGET and what a busy machine adds
    assert time.perf_counter() - began < 2 * BUDGET
    assert "\n" not in str(raised.value)
    assert not grammars.compile(regex=f"b{name}").is_finished


def test_what_takes_longer_than_its_budget_is_refused(grammars, monkeypatch):
    """With a budget that no machine keeps: how long 5,000 properties take, the machine says."""
    grammars.compile(regex="a")
    monkeypatch.setattr(constrain, "BUDGET", 0.1)
    began = time.perf_counter()
    with pytest.raises(ModelError, match=r"more than 0\.1 seconds") as raised:
        grammars.compile(json_schema=object_of(5000))
    assert time.perf_counter() - began < BUDGET
    assert "\n" not in str(raised.value)
    monkeypatch.undo()
    assert not grammars.compile(regex="b").is_finished


@pytest.mark.parametrize(
    "regex",
    ["(a{1000}){1000}", "((a{100}){100}){100}", "(a|b)*a" + "(a|b)" * 40, "(x+x+)+y", "(a*)*$"],
)
def test_an_expression_that_explodes_elsewhere_is_followed(grammars, regex):
    constraint = grammars.compile(regex=regex)
    draw = random.Random(0)
    for _ in range(200):
        ids = constraint.allowed().nonzero()[:, 0].tolist()
        token = draw.choice(ids)
        if token == END:
            break
        constraint.accept(token)


def test_more_memory_than_is_given_is_refused_and_this_process_lives():
    trials = _Trials([bytes([byte]) for byte in range(256)], memory=1 << 20)
    request = json.dumps(["json_schema", {"const": "x" * 3_000_000}]).encode()
    with pytest.raises(ModelError, match="memory"):
        trials.run("json_schema", request)
    assert "start" in trials.run("regex", b'["regex", "a"]')
    trials.child.close()


def test_a_process_that_was_killed_is_started_again(grammars):
    grammars.compile(regex="first")
    process = grammars._trials.child.process
    os.kill(process.pid, signal.SIGKILL)
    assert grammars.compile(regex="second").allowed().any()
    assert grammars._trials.child.process is not process


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ({"type": "string", "foo": 1}, "foo"),
        ({"not": {"type": "string"}}, "not"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "array", "contains": {}}, "contains"),
        ({"properties": {"a": {"if": {}}}}, "if"),
        ({"anyOf": [{"type": "null"}, {"dependentRequired": {}}]}, "dependentRequired"),
        ({"$defs": {"x": {"unevaluatedProperties": False}}}, "unevaluatedProperties"),
        ({"items": [{"propertyNames": {}}]}, "propertyNames"),
        ({"nullable": True}, "nullable"),
        ({"x-guidance": {"lenient": True}}, "x-guidance"),
        ({"contentEncoding": "base64"}, "contentEncoding"),
        ({"type": "string", "format": "weird"}, "weird"),
        ({"minimum": "5"}, "number"),
        ({"required": "a"}, "list"),
        ({"required": [1]}, "names"),
        ({"anyOf": {}}, "list"),
        ({"minLength": -1}, "count"),
        ({"pattern": 5}, "text"),
        ({"properties": []}, "object"),
        ({"type": "nonsense"}, "nonsense"),
    ],
)
def test_a_keyword_that_is_not_followed_is_refused_by_name(grammars, schema, name):
    with pytest.raises(ModelError, match=name):
        grammars.compile(json_schema=schema)


def test_what_is_no_keyword_may_be_anything(grammars):
    """Names of properties, values, and what is only said about a schema."""
    schema = {
        **{"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "t"},
        **{"type": "object", "properties": {"not": {"enum": [{"if": 1}]}}, "required": ["not"]},
        **{"default": {"foo": 1}, "examples": [{"foo": 1}], "x-order": 3, "deprecated": True},
        "additionalProperties": False,
    }
    assert grammars.compile(json_schema=schema).allowed().any()
    assert grammars.compile(json_schema=json.dumps(schema)).allowed().any()


def accept_all(constraint, tokenizer, text):
    for token in tokenizer.backend.encode(text).ids:
        assert constraint.allowed()[token]
        constraint.accept(token)


def test_an_end_is_allowed_where_the_text_may_end_and_nowhere_else():
    tokenizer = MORE_KINDS["bytes in pieces"]()
    grammars = Grammars(tokenizer, len(tokenizer), frozenset([0, 1, 10**6]))
    constraint = grammars.compile(regex="ab?")
    allowed = constraint.allowed()
    assert not allowed[0] and not allowed[1]
    with pytest.raises(ModelError, match="ends the text"):
        constraint.accept(1)
    accept_all(constraint, tokenizer, "a")
    allowed = constraint.allowed()
    assert allowed[0] and allowed[1] and allowed.sum() == 3 and not constraint.is_finished
    forked = constraint.fork()
    accept_all(constraint, tokenizer, "b")
    assert constraint.is_finished
    assert constraint.allowed().nonzero()[:, 0].tolist() == [0, 1]
    constraint.accept(1)
    # the other one still stands where it was
    assert not forked.is_finished and forked.allowed().sum() == 3
    forked.accept(0)
    assert forked.is_finished
    again = grammars.compile(regex="ab?")
    assert not again.is_finished and not again.allowed()[0]
    grammars.close()


@pytest.mark.parametrize("token", [5, -1, 10**6, 1])
def test_a_token_that_is_not_allowed_is_an_error(token):
    tokenizer = MORE_KINDS["bytes in pieces"]()
    grammars = Grammars(tokenizer, len(tokenizer), frozenset([0]))
    constraint = grammars.compile(regex="ab?")
    with pytest.raises(ModelError, match=f"token {token} is not allowed"):
        constraint.accept(token)
    grammars.close()


def test_characters_that_the_tokenizer_lacks_are_said():
    tokenizer = MORE_KINDS["characters"]()
    grammars = Grammars(tokenizer, len(tokenizer), frozenset([1]))
    with pytest.raises(ModelError, match="no tokens to begin with"):
        grammars.compile(choices=["ö"])
    constraint = grammars.compile(choices=["aö"])
    accept_all(constraint, tokenizer, "a")
    with pytest.raises(ModelError, match="no token for"):
        constraint.allowed()
    grammars.close()


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    tokenizer = MORE_KINDS["bytes"]()
    with pytest.raises(ModelError, match="pip install"):
        Grammars(tokenizer, len(tokenizer), frozenset([0]))


def test_several_threads_compile_at_once(grammars):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: grammars.compile(regex=f"t{n % 5}"), range(20)))
    assert all(each.allowed().any() for each in found)


def test_the_process_that_tries_grammars_ends_with_this_one():
    code = (
        "import os\n"
        "from tests.tokenizer_kinds import KINDS\n"
        "from langue.generation.constrain import Grammars\n"
        "tokenizer = KINDS['bytes']()\n"
        "grammars = Grammars(tokenizer, len(tokenizer), frozenset([0]))\n"
        "grammars.compile(regex='a')\n"
        "print(grammars._trials.child.process.pid, flush=True)\n"
        "os._exit(0)\n"
    )
    done = forked.run_script(code)
    assert done.returncode == 0, done.stderr
    number = int(done.stdout)
    until = time.monotonic() + 20
    while Path(f"/proc/{number}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{number}").exists()
