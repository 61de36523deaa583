"""Calls of tools that a model writes by itself, in the forms that models use."""

import json

import pytest

from langue.serve.api_errors import ApiError
from langue.serve.conversation import Tools, as_template_has_them
from langue.serve.fields import MessageFields, ToolFields

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
GIVEN = [
    ToolFields(type="function", function={"name": name, "parameters": PARAMETERS})
    for name in ("weather", "news")
]
ROME = '{"name": "weather", "arguments": {"city": "Rome"}}'
OSLO = '{"name": "news", "parameters": {"city": "Oslo"}}'


@pytest.mark.parametrize(
    ("text", "before", "names"),
    [
        ("It rains.", "It rains.", []),
        (f"<tool_call>\n{ROME}\n</tool_call>", "", ["weather"]),
        (f"Let me see.\n<tool_call>{ROME}</tool_call>\n<tool_call>{OSLO}</tool_call>",
         "Let me see.", ["weather", "news"]),
        (f"[TOOL_CALLS] [{ROME}, {OSLO}]", "", ["weather", "news"]),
        (f" {OSLO} ", "", ["news"]),
        ('{"name": "poem", "arguments": {}}', '{"name": "poem", "arguments": {}}', []),
        ('{"name": ["weather"], "arguments": {}}', '{"name": ["weather"], "arguments": {}}', []),
        ('<tool_call>{"name": "weather", "arg', '<tool_call>{"name": "weather", "arg', []),
        ('{"city": 1}', '{"city": 1}', []),
        ("[1, 2]", "[1, 2]", []),
    ],
)  # fmt: skip
def test_calls_are_read(text, before, names) -> None:
    tools = Tools(GIVEN, None, None)
    rest, calls = tools.read(text)
    assert rest == before and [each["function"]["name"] for each in calls] == names
    assert all("city" in json.loads(each["function"]["arguments"]) for each in calls)
    # of a stream, nothing of a call is sent, whatever the parts are that it comes in
    for end in range(len(text) + 1):
        sent = text[: tools.free(text[:end])]
        assert not names or before.startswith(sent)
        assert text.startswith(sent)


def test_one_call_at_a_time() -> None:
    tools = Tools(GIVEN, "auto", False)
    assert len(tools.read(f"[TOOL_CALLS][{ROME},{OSLO}]")[1]) == 1
    assert Tools(GIVEN, "none", None).read(ROME) == (ROME, [])


def test_definitions_of_arguments_stand_where_references_look() -> None:
    parameters = {
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/city"}},
        "$defs": {"city": {"enum": ["Rome"]}},
    }
    one = ToolFields(type="function", function={"name": "weather", "parameters": parameters})
    schema = Tools([one], "required", None).schema()
    assert schema["$defs"] == {"city": {"enum": ["Rome"]}}


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user"}, "messages.0.content"),
        ({"role": "tool", "content": "x"}, "messages.0.tool_call_id"),
        ({"role": "user", "content": "x", "tool_call_id": "1"}, "messages.0.tool_call_id"),
        ({"role": "assistant", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "a", "arguments": "{"}}]},
         "messages.0.tool_calls"),
    ],
)  # fmt: skip
def test_odd_messages_are_refused_by_their_place(message, param) -> None:
    with pytest.raises(ApiError) as caught:
        as_template_has_them([MessageFields(**message)])
    assert (caught.value.status, caught.value.param) == (400, param)
