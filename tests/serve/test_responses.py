"""`/v1/responses`, asked by OpenAI's own client."""

import json

import openai
import pytest

from tests.serve.serving import serving, with_template
from tests.serve.test_openai import ANSWER, TOOLS
from tests.tiny_decoder import tiny_decoder

FUNCTIONS = [{"type": "function", "strict": True, **each["function"]} for each in TOOLS]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_decoder(folder, "qwen3", max_position_embeddings=2048)
    with serving(with_template(folder), "--memory", "100MB") as found:
        yield found


@pytest.fixture(scope="module")
def client(server):
    return server.openai()


def respond(client, **options):
    given = {"model": "tiny", "input": "hello", "max_output_tokens": 12, "temperature": 0}
    return client.responses.create(**given | options)


def test_it_is_the_answer_of_a_conversation(client) -> None:
    found = respond(client, instructions="be brief")
    talk = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    chat = client.chat.completions.create(model="tiny", messages=talk, max_tokens=12)
    assert found.output_text == chat.choices[0].message.content
    assert found.usage.input_tokens == chat.usage.prompt_tokens
    assert (found.status, found.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    parts = [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}]
    assert respond(client, instructions="be brief", input=parts).output_text == found.output_text


def test_events_add_up_to_the_answer(client) -> None:
    whole = respond(client, include=["message.output_text.logprobs"])
    assert len(whole.output[0].content[0].logprobs) == whole.usage.output_tokens
    events = list(respond(client, stream=True))
    given = {"model": "tiny", "input": "hello", "max_output_tokens": 12}
    with client.responses.with_streaming_response.create(**given, stream=True) as raw:
        sent = [line[6:] for line in raw.iter_lines() if line.startswith("data: {")]
    for each, line in zip(events, sent, strict=True):  # the client itself takes false for 0
        type(each).model_validate_json(line, strict=True)
    assert [each.sequence_number for each in events] == list(range(len(events)))
    kinds = [each.type.removeprefix("response.") for each in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    ends = ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    assert kinds[-4:] == ends
    text = "".join(each.delta for each in events if each.type.endswith("output_text.delta"))
    assert text == whole.output_text == events[-1].response.output_text
    assert events[-1].response.usage == whole.usage


@pytest.mark.parametrize("stream", [False, True])
def test_functions_are_called(client, stream) -> None:
    options = {"tools": FUNCTIONS, "tool_choice": "required", "max_output_tokens": 300}
    found = respond(client, stream=stream, **options)
    if stream:
        events = list(found)
        found = events[-1].response
        done = [each for each in events if each.type.endswith("arguments.done")]
        assert done[0].arguments == found.output[0].arguments
    (call,) = found.output
    assert call.type == "function_call" and json.loads(call.arguments)["city"] in ("Rome", "Oslo")
    talk = [
        {"role": "user", "content": "hello"},
        call.model_dump(),
        {"type": "function_call_output", "call_id": call.call_id, "output": "rain"},
    ]
    answer = respond(client, input=talk, tools=FUNCTIONS)
    assert answer.output_text
    again = [*talk, *(each.model_dump() for each in answer.output), talk[0]]
    assert respond(client, input=again, tools=FUNCTIONS).output_text


def test_the_text_has_the_form_that_is_asked_for(client) -> None:
    asked = {"format": {"type": "json_schema", "name": "a", "schema": ANSWER, "strict": True}}
    found = respond(client, text=asked, max_output_tokens=200, temperature=1)
    assert set(json.loads(found.output_text)) == {"ok"} and found.status == "completed"


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"max_output_tokens": 10**7}, "max_output_tokens"),
    ],
)
def test_what_is_not_followed_is_refused_by_its_name(client, options, param) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        respond(client, **options)
    assert caught.value.param == param


def test_every_field_of_the_client_is_followed_or_refused() -> None:
    from openai.types.responses import response_create_params

    from langue.serve.response_fields import ResponseFields

    known = {*ResponseFields.model_fields, *ResponseFields.refused}
    theirs = set(response_create_params.ResponseCreateParamsBase.__annotations__)
    assert theirs - known == set()
