"""A real server asked by OpenAI's own client, with its strict check of every answer."""

import json
import math

import openai
import pytest

from langue.runs.model import load
from tests.serve.serving import serving, with_template
from tests.tiny_decoder import tiny_decoder

HELLO = [{"role": "user", "content": "hello"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"city": {"enum": ["Rome", "Oslo"]}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("weather", "news")
]
ANSWER = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tiny_decoder(
        tmp_path_factory.mktemp("model") / "tiny", "qwen3", max_position_embeddings=1024
    )
    return with_template(made)


@pytest.fixture(scope="module")
def model(folder):
    return load(folder, dtype="auto")


@pytest.fixture(scope="module")
def server(folder):
    with serving(folder, "--memory", "100MB") as found:
        yield found


@pytest.fixture(scope="module")
def client(server):
    return server.openai()


def chat(client, **options):
    return client.chat.completions.create(
        **{"model": "tiny", "messages": HELLO, "max_tokens": 12} | options
    )


def complete(client, **options):
    return client.completions.create(
        **{"model": "tiny", "prompt": "the ball", "max_tokens": 12} | options
    )


def test_models_are_listed_and_found(client) -> None:
    assert [each.id for each in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "langue"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("other")
    assert caught.value.code == "model_not_found"


def test_a_conversation_is_answered_as_in_python(client, model) -> None:
    answer = chat(client)
    assert answer.choices[0].message.content == model.generate([HELLO], 12)[0]
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    text = model.tokenizer.chat(HELLO)
    assert answer.usage.prompt_tokens == len(model.tokenizer.backend.encode(text).ids)
    parts = [
        {"role": "user", "content": [{"type": "text", "text": part} for part in ("hel", "lo")]}
    ]
    assert chat(client, messages=parts).choices[0].message == answer.choices[0].message


def test_a_stream_is_the_same_text_and_ends_with_usage(client) -> None:
    whole = chat(client, n=2, temperature=1.2, seed=5, logprobs=True, top_logprobs=2)
    options = {"n": 2, "temperature": 1.2, "seed": 5, "logprobs": True, "top_logprobs": 2}
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}, **options))
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert whole.choices[0].message.content != whole.choices[1].message.content
    for index, choice in enumerate(whole.choices):
        parts = [c for chunk in chunks for c in chunk.choices if c.index == index]
        assert "".join(c.delta.content or "" for c in parts) == choice.message.content
        told = [t for c in parts if c.logprobs for t in c.logprobs.content]
        assert told == choice.logprobs.content
        assert [c.finish_reason for c in parts if c.finish_reason] == ["length"]


def test_sampling_is_as_asked(client, model) -> None:
    options = {"temperature": 1.5, "top_p": 0.9, "presence_penalty": 0.5, "frequency_penalty": 1.0}
    expected = model.generate(["the ball"], 12, seed=7, **options)
    assert complete(client, seed=7, **options).choices[0].text == expected[0]
    drawn = {complete(client, temperature=1.5).choices[0].text for _ in range(3)}
    assert len(drawn) > 1  # without a seed each call has its own
    only = complete(client, logit_bias={"70": 100}).choices[0].text
    assert only == model.tokenizer.decode([70]) * 12


def test_whole_numbers_may_be_written_with_a_point(client) -> None:
    """JSON has one kind of number; what is no whole one is refused."""
    plain, pointed = (
        complete(client, max_tokens=kind(3), seed=kind(5), temperature=1, prompt=[kind(7), kind(8)])
        for kind in (int, float)
    )
    assert pointed.choices[0].text == plain.choices[0].text
    assert pointed.usage == plain.usage and pointed.usage.completion_tokens == 3
    for wrong in (3.5, "3", True, 1e300):
        with pytest.raises(openai.BadRequestError) as caught:
            complete(client, max_tokens=wrong)
        assert caught.value.param == "max_tokens"


def test_a_stop_text_is_never_sent(client, server) -> None:
    text = complete(client, max_tokens=40).choices[0].text
    stop = text[6:9]
    answer = complete(client, max_tokens=40, stop=[stop, "never"]).choices[0]
    assert answer.text == text[: text.index(stop)] and answer.finish_reason == "stop"
    # the client's type of a chunk has no null where the answer goes on, though OpenAI sends it
    plain = server.openai(_strict_response_validation=False)
    chunks = complete(plain, max_tokens=40, stop=stop, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == answer.text


def test_lists_of_prompts_and_token_ids(client, model) -> None:
    ids = [model.tokenizer.backend.encode(text).ids for text in ("the ball", "a bat")]
    by_ids = complete(client, prompt=ids, n=2, temperature=1.0, seed=1).choices
    by_text = complete(client, prompt=["the ball", "a bat"], n=2, temperature=1.0, seed=1).choices
    assert [each.index for each in by_ids] == [0, 1, 2, 3]
    assert [each.text for each in by_ids] == [each.text for each in by_text]
    assert by_ids[0].text != by_ids[1].text


@pytest.mark.parametrize("most", [0, 1])
def test_echo_scores_the_prompt(server, model, most) -> None:
    """As lm-evaluation-harness asks."""
    # OpenAI sends null for the first token, which the client's own types do not know
    client = server.openai(_strict_response_validation=False)
    ids = model.tokenizer.backend.encode("the ball in the web").ids
    answer = complete(client, prompt=[ids], max_tokens=most, echo=True, logprobs=1, temperature=0)
    told = answer.choices[0].logprobs
    scores = model.logits([ids])[0]
    expected = [
        float(row[token] - math.log(sum(math.exp(x) for x in row.astype(float))))
        for row, token in zip(scores, ids[1:], strict=False)
    ]
    assert told.token_logprobs[0] is None and told.top_logprobs[0] is None
    assert told.token_logprobs[1 : len(ids)] == pytest.approx(expected, abs=1e-4)
    assert len(told.tokens) == len(ids) + most
    assert answer.choices[0].text.startswith("the ball in the web")
    assert answer.usage.completion_tokens == most


def test_an_answer_has_the_form_that_is_asked_for(client) -> None:
    asked = {"type": "json_schema", "json_schema": {"name": "a", "schema": ANSWER, "strict": True}}
    answer = chat(client, response_format=asked, max_tokens=200, temperature=1, seed=3)
    assert set(json.loads(answer.choices[0].message.content)) == {"ok"}
    assert answer.choices[0].finish_reason == "stop"
    free = chat(client, response_format={"type": "json_object"}, max_tokens=30)
    assert free.choices[0].message.content.lstrip().startswith("{")


@pytest.mark.parametrize("stream", [False, True])
def test_tools_that_must_be_called_are(client, stream) -> None:
    chosen = {"type": "function", "function": {"name": "news"}}
    for choice, names in (("required", {"weather", "news"}), (chosen, {"news"})):
        answer = chat(client, tools=TOOLS, tool_choice=choice, max_tokens=300, stream=stream)
        if stream:
            chunks = list(answer)
            calls = [c for k in chunks for c in (k.choices[0].delta.tool_calls or [])]
            assert not any(k.choices[0].delta.content for k in chunks)
            reason = chunks[-1].choices[0].finish_reason
        else:
            calls = answer.choices[0].message.tool_calls
            assert answer.choices[0].message.content is None
            reason = answer.choices[0].finish_reason
        assert calls[0].function.name in names and reason == "tool_calls"
        assert json.loads(calls[0].function.arguments)["city"] in ("Rome", "Oslo")
    talk = [
        *HELLO,
        {"role": "assistant", "tool_calls": [calls[0].model_dump(exclude={"index"})]},
        {"role": "tool", "tool_call_id": calls[0].id, "content": "rain"},
    ]
    assert chat(client, messages=talk, tools=TOOLS).choices[0].message.content


def test_a_published_model_in_a_file_of_its_own_is_served(shared_data) -> None:
    file = shared_data("stories260K") / "stories260K.bin"
    with serving(file, "--memory", "100MB") as server:
        answer = server.openai().completions.create(
            model="stories260K", prompt="Once upon a time", max_tokens=20, temperature=0
        )
    assert answer.choices[0].text.startswith(", there was a little girl named Lily.")


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ({"service_tier": "flex"}, "service_tier", "unsupported_parameter"),
        ({"store": True}, "store", "unsupported_parameter"),
        ({"extra_body": {"colour": 1}}, "colour", "unknown_parameter"),
        ({"temperature": -1}, "temperature", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 10**8}, "max_tokens", "invalid_value"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "poet", "content": "x"}]}, "messages.0.role", "invalid_value"),
        ({"messages": HELLO * 100}, "messages", "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "a " * 200_000}]}, "messages",
         "context_length_exceeded"),
        ({"max_tokens": 1020}, "messages", "context_length_exceeded"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"extra_body": {"stream": 1}}, "stream", "invalid_value"),
        ({"stop": [""]}, "stop.0", "invalid_value"),
        ({"extra_body": {"min_tokens": 20}}, "min_tokens", "invalid_value"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {
                "type": "string", "contentEncoding": "base64"}}}},
            "response_format",
            "invalid_value",
        ),
    ],
)  # fmt: skip
def test_what_is_not_followed_is_refused_by_its_name(client, options, param, code) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, **options)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.type == "invalid_request_error"


def test_every_field_of_the_client_is_followed_or_refused() -> None:
    from openai.types import (
        completion_create_params,
        decision_create_params,
        embedding_create_params,
    )
    from openai.types.chat import completion_create_params as chat_params

    from langue.serve.decision_fields import DecisionFields
    from langue.serve.fields import ChatFields, CompletionFields, EmbeddingFields

    for ours, theirs in (
        (ChatFields, chat_params.CompletionCreateParamsBase),
        (CompletionFields, completion_create_params.CompletionCreateParamsBase),
        (EmbeddingFields, embedding_create_params.EmbeddingCreateParams),
        (DecisionFields, decision_create_params.DecisionCreateParams),
    ):
        known = {*ours.model_fields, *ours.refused}
        assert set(theirs.__annotations__) - known == set()
        assert not set(ours.model_fields) & set(ours.refused)
