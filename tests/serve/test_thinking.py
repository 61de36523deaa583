"""Models whose templates mark thoughts, which are told apart from answers, also as they come."""

import openai
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from langue.runs.model import load
from langue.serve.thinking import Thinking, marks_of
from langue.text.tokenizers.tokenizer import Tokenizer
from tests.serve.serving import serving, with_template
from tests.tiny_decoder import tiny_decoder

MARKS = ("<think>", "</think>")
TEMPLATE = (
    "{% if messages[-1].content == 'loop' %}{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% endfor %}{% endfor %}{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.reasoning_content or '' }}{{ m.content }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<answer>"
    "{% if enable_thinking is not defined or enable_thinking %}<think>\n{% else %}</think>"
    "{% endif %}{% endif %}"
)
HELLO = [{"role": "user", "content": "hello"}]
LENGTH = 40


@pytest.mark.parametrize(
    ("text", "inside", "thought", "answer"),
    [
        ("It is 4.", False, "", "It is 4."),
        ("<think>2 < 3\n\n</think>\n\nIt is </think> 4.", False, "2 < 3", "It is </think> 4."),
        ("\n<think> a </thin b", False, "a </thin b", ""),
        ("So 2 + 2.\n</think>\nIt is 4.", True, "So 2 + 2.", "It is 4."),
        ("So 2 + 2", True, "So 2 + 2", ""),
        ("<thing>", False, "", "<thing>"),
        ("<think></think>4", False, "", "4"),
    ],
)
def test_thought_and_answer_are_parted_however_the_text_comes(
    text, inside, thought, answer
) -> None:
    thinking = Thinking(MARKS)
    thinking.begin("<assistant><think>\n" if inside else "<assistant>")
    whole = thinking.part(text)
    assert (whole.thought, whole.text) == (thought, answer)
    for end in range(len(text)):
        part = thinking.part(text[:end], is_whole=False)
        assert thought.startswith(part.thought) and answer.startswith(part.text)
    assert Thinking(None).part(text).text == text


def test_marks_are_those_of_the_template_that_are_seen() -> None:
    assert marks_of("{{ '[THINK]' }}a[/THINK]") == ("[THINK]", "[/THINK]")
    assert marks_of("a</think>", {"</think>"}) is None and marks_of(None) is None


def closing(token: int) -> Tokenizer:
    """Each byte a token, but for one that is the mark in its place."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<|endoftext|>", *alphabet, "th"]
    names[token] = MARKS[1]
    vocabulary = {name: index for index, name in enumerate(names)}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, [("t", "h")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    backend.add_tokens([MARKS[1]])
    return Tokenizer(backend)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Its likeliest answer closes the thought."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    made = with_template(
        tiny_decoder(folder, "qwen3", max_position_embeddings=1024), TEMPLATE
    )  # fmt: skip
    plain = load(made, dtype="auto")
    prompt = plain.tokenizer.backend.encode(plain.tokenizer.chat(HELLO)).ids
    (answer,) = plain.generate([prompt], LENGTH)
    token = next(t for t in answer[3:] if t not in prompt and answer.index(t) > 2 and t < 257)
    closing(token).save(folder)
    return load(folder, dtype="auto")


@pytest.fixture(scope="module")
def client(model):
    with serving(model.checkpoint.folder, "--memory", "100MB") as server:
        yield server.openai()


def chat(client, **options):
    given = {"model": "tiny", "messages": HELLO, "max_tokens": LENGTH}
    return client.chat.completions.create(**given | options)


def test_the_thought_is_told_beside_the_answer(client, model) -> None:
    (text,) = model.generate([HELLO], LENGTH)
    before, _, after = text.partition(MARKS[1])
    found = chat(client)
    message = found.choices[0].message
    assert message.reasoning_content == before.strip() and before.strip()
    assert message.content == after.lstrip() and after.strip()
    counted = found.usage.completion_tokens_details.reasoning_tokens
    assert 4 <= counted < LENGTH
    chunks = list(chat(client, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert thought == message.reasoning_content
    assert "".join(delta.content or "" for delta in deltas) == message.content
    cut = chat(client, max_tokens=2)
    assert cut.choices[0].message.content == "" and cut.choices[0].finish_reason == "length"
    assert cut.usage.completion_tokens_details.reasoning_tokens == 2


def test_an_earlier_thought_is_read_and_thinking_may_be_left_out(client, model) -> None:
    talk = [*HELLO, {"role": "assistant", "content": "a", "reasoning_content": "because"}, *HELLO]
    read = chat(client, messages=talk).usage.prompt_tokens
    assert read == len(model.tokenizer.backend.encode(model.tokenizer.chat(talk)).ids)
    for how in ({"reasoning_effort": "none"},
                {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}):  # fmt: skip
        message = chat(client, **how).choices[0].message
        assert message.content and not hasattr(message, "reasoning_content")
    for how, param in (
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"extra_body": {"chat_template_kwargs": {"mood": 1}}}, "chat_template_kwargs"),
        ({"extra_body": {"chat_template_kwargs": {"messages": []}}}, "chat_template_kwargs"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            chat(client, **how)
        assert caught.value.param == param


def test_responses_have_an_item_of_the_thought(client) -> None:
    message = chat(client).choices[0].message
    given = {"model": "tiny", "input": "hello", "max_output_tokens": LENGTH, "temperature": 0}
    found = client.responses.create(**given)
    thought, said = found.output
    assert (thought.type, thought.content[0].text) == ("reasoning", message.reasoning_content)
    assert found.output_text == message.content
    assert found.usage.output_tokens_details.reasoning_tokens > 0
    events = list(client.responses.create(**given, stream=True))
    told = "".join(each.delta for each in events if each.type.endswith("reasoning_text.delta"))
    assert told == message.reasoning_content
    done = [each for each in events if each.type == "response.output_item.done"]
    assert [(each.output_index, each.item.type) for each in done] == [
        (0, "reasoning"),
        (1, "message"),
    ]
    again = [{"role": "user", "content": "hello"}, *(each.model_dump() for each in found.output)]
    again.append({"role": "user", "content": "hello"})
    read = client.responses.create(**given | {"input": again}).usage.input_tokens
    assert read > found.usage.input_tokens + len(message.reasoning_content.encode())


def test_a_template_that_never_ends_is_refused_and_the_next_call_is_answered(client) -> None:
    with pytest.raises(openai.BadRequestError, match="more than 2 seconds") as caught:
        chat(client, messages=[{"role": "user", "content": "loop"}])
    assert caught.value.param == "messages"
    assert chat(client).choices


def test_texts_are_cut_into_tokens_and_joined(client, model) -> None:
    post = client._client.post

    def ask(route, **fields):
        address = str(client.base_url).replace("/v1/", route)
        return post(address, json={"model": "tiny", **fields}, timeout=60)

    ids = model.tokenizer.backend.encode("hello, world").ids
    found = ask("/tokenize", prompt="hello, world", return_token_strs=True).json()
    assert (found["tokens"], found["count"], found["max_model_len"]) == (ids, len(ids), 1024)
    assert found["token_strs"] == [model.tokenizer.token(each) for each in ids]
    assert ask("/detokenize", tokens=ids).json() == {"prompt": "hello, world"}
    talk = ask("/tokenize", messages=HELLO).json()
    assert talk["count"] == chat(client).usage.prompt_tokens and talk["token_strs"] is None
    bare = ask("/tokenize", messages=HELLO, add_generation_prompt=False).json()
    assert bare["count"] < talk["count"]
    for route, fields, param in (
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": HELLO}, "prompt"),
        ("/tokenize", {"prompt": "a", "tools": []}, "tools"),
        ("/detokenize", {"tokens": [10**6]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens.0"),
    ):
        answer = ask(route, **fields)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
