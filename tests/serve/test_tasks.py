"""Models of tasks and encoder-decoders behind one server, each on its own route."""

import base64
import json
import threading
from functools import partial

import numpy as np
import openai
import pytest

from langue.runs import model
from tests.serve.serving import serving
from tests.serve.tiny_runs import TEXTS, tiny_runs

load = partial(model.load, dtype="auto")
NEAR = 0.02


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tiny_runs(tmp_path_factory.mktemp("runs"))


NAMES = ("bert", "labels", "tagger", "answers", "scores", "nli", "t5")


@pytest.fixture(scope="module")
def server(folders):
    with serving(*(folders / name for name in NAMES), "--memory", "100MB") as found:
        yield found


def ask(server, route, **fields):
    answer = server.http.post(f"/v1/{route}", json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def close(found, expected):
    """Scores may differ by what bf16 does not tell: other texts were in the batch."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            close(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            close(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=NEAR)
    else:
        assert found == expected


def test_routes_give_what_predict_gives(server, folders) -> None:
    labels = ask(server, "classify", model="labels", input=TEXTS)["data"]
    close(
        [each["labels"][0] for each in labels],
        load(folders / "labels").predict(TEXTS),
    )
    every = ask(server, "classify", model="labels", input=TEXTS[0], top="all")["data"]
    close(every[0]["labels"], load(folders / "labels").predict(TEXTS[:1], top=None)[0])
    tags = ask(server, "tag", model="tagger", input=TEXTS)["data"]
    close([each["entities"] for each in tags], load(folders / "tagger").predict(TEXTS))
    words = [text.split() for text in TEXTS]
    close(ask(server, "tag", model="tagger", input=words)["data"], tags)
    question = {"question": "what was it", "context": TEXTS[1]}
    expected = load(folders / "answers").predict([question], top=2)[0]
    close(ask(server, "answer", model="answers", top=2, **question)["data"][0]["answers"], expected)


def test_encoder_decoders_write(server, folders) -> None:
    expected = load(folders / "t5").generate(TEXTS, 8, beams=2)
    found = ask(server, "translate", model="t5", input=TEXTS, max_tokens=8, beams=2)
    assert [each["text"] for each in found["data"]] == expected
    short = ask(server, "summarise", model="t5", input=TEXTS[0])
    assert short["data"][0]["text"] == load(folders / "t5").generate(TEXTS[:1])[0]


def events_of(answer):
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(each.removeprefix("data: ")) for each in events]


@pytest.mark.parametrize("beams", [1, 2])
def test_what_is_written_for_texts_is_streamed(server, beams) -> None:
    """In parts that are together the whole answer; of beams, each text at once."""
    fields = {"model": "t5", "input": TEXTS[:2], "max_tokens": 8, "beams": beams}
    whole = ask(server, "translate", **fields)
    told = {"stream": True, "stream_options": {"include_usage": True}}
    *parts, last = events_of(server.http.post("/v1/translate", json=fields | told))
    assert last == {**whole, "data": []}
    assert all(part.keys() == whole.keys() - {"usage"} for part in parts)
    texts = [each for part in parts for each in part["data"]]
    for expected in whole["data"]:
        own = [each for each in texts if each["index"] == expected["index"]]
        assert "".join(each["text"] for each in own) == expected["text"]
        reasons = [each["finish_reason"] for each in own]
        assert reasons == [None] * (len(own) - 1) + [expected["finish_reason"]]
        assert len(own) == 1 if beams > 1 else len(own) > 1
    silent = events_of(server.http.post("/v1/translate", json=fields | {"stream": True}))
    assert silent == parts


def decide(server, model, *questions, text=TEXTS[1]):
    client = server.openai()
    found = client.decisions.create(model=model, input=text, questions=questions)
    assert found.usage.total_tokens == found.usage.input_tokens > 0
    assert [each.type for each in found.answers] == [each["type"] for each in questions]
    return found.answers


def questions_of(labels):
    return (
        {"type": "choice", "name": "q", "instructions": "How is it?",
         "choices": [{"value": label} for label in labels]},
        {"type": "score", "instructions": "How is it?",
         "levels": [{"label": label, "description": "so"} for label in labels]},
    )  # fmt: skip


def test_questions_are_answered_by_probabilities(server, folders) -> None:
    shown = load(folders / "labels").predict(TEXTS[1:2], top=None)[0]
    scores = {each["label"]: each["score"] for each in shown}
    labels = sorted(scores)
    statement = {"type": "predicate", "instructions": labels[0]}
    chosen, rated, judged = decide(server, "labels", *questions_of(labels), statement)
    assert chosen.name == "q" and chosen.choice == max(scores, key=scores.get)
    found = {each.value: each.probability for each in chosen.probabilities}
    close(found, scores)
    assert chosen.confidence == max(found.values())
    assert rated.score == pytest.approx(found[labels[1]], abs=1e-6)  # the mean of 0 and 1
    assert judged.probability == pytest.approx(scores[labels[0]], abs=NEAR)


@pytest.mark.parametrize("name", ["nli", "t5"])
def test_answers_that_no_label_stands_for(server, folders, name) -> None:
    """By entailment, and by how likely a language model takes each answer."""
    model = load(folders / name)
    chosen, rated = decide(server, name, *questions_of(["good", "dull"]))
    statement = {"type": "predicate", "instructions": [{"type": "input_text", "text": "It is."}]}
    talk = [{"role": "user", "content": TEXTS[1]}]
    (judged,) = decide(server, name, statement, text=talk)
    if name == "nli":
        (expected,) = model.zero_shot(TEXTS[1:2], ["good", "dull"], template="How is it? {}")
        yes = model.zero_shot(TEXTS[1:2], ["It is."], template="{}", multi_label=True)
        assert judged.probability == pytest.approx(yes[0]["scores"][0], abs=NEAR)
        best, score = expected["labels"][0], expected["scores"][0]
    else:
        lines = [TEXTS[1], "", "How is it?", "- good", "- dull", "Answer:"]
        ranked = model.rank("\n".join(lines), [" good", " dull"])
        best, score = ranked[0]["choice"].strip(), ranked[0]["score"]
    assert (chosen.choice, chosen.confidence) == (best, pytest.approx(score, abs=NEAR))
    assert 0 <= rated.score <= 1 and 0 < judged.probability < 1


def test_documents_are_ranked(server, folders) -> None:
    found = ask(server, "rerank", model="scores", query="a film", documents=TEXTS)["results"]
    scores = [each["relevance_score"] for each in found]
    assert scores == sorted(scores, reverse=True) and len(scores) == 3
    first = ask(server, "rerank", model="bert", query=TEXTS[1], documents=TEXTS, top_n=1,
                return_documents=True)  # fmt: skip
    (best,) = first["results"]
    assert best["index"] == 1 and best["document"]["text"] == TEXTS[1]
    assert best["relevance_score"] == pytest.approx(1, abs=1e-5)


def test_embeddings_of_the_client(server, folders) -> None:
    # strict, it checks the answer before it reads the base64 that it asks for by itself
    client = server.openai(_strict_response_validation=False)
    expected = load(folders / "bert").encode(TEXTS)
    for options in ({}, {"encoding_format": "float"}):
        found = client.embeddings.create(model="bert", input=TEXTS, **options)
        vectors = np.array([each.embedding for each in found.data])
        np.testing.assert_allclose(vectors, expected, atol=NEAR)
    strict = server.openai().embeddings.create
    assert strict(model="bert", input=TEXTS, encoding_format="float").data == found.data
    short = client.embeddings.create(model="bert", input=TEXTS[0], dimensions=4)
    np.testing.assert_allclose(short.data[0].embedding, expected[0, :4], atol=NEAR)
    raw = ask(server, "embeddings", model="bert", input="a film", encoding_format="base64")
    assert len(base64.b64decode(raw["data"][0]["embedding"])) == 4 * expected.shape[1]
    ids = load(folders / "bert").tokenizer.encode_batch(TEXTS)
    by_ids = client.embeddings.create(model="bert", input=[each.ids for each in ids])
    np.testing.assert_allclose([e.embedding for e in by_ids.data], expected, atol=NEAR)
    assert by_ids.usage.prompt_tokens == sum(len(each.ids) for each in ids)
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="bert", input="a film", dimensions=1000)
    assert caught.value.param == "dimensions"


def test_what_is_too_long_is_refused_or_cut_and_told(server) -> None:
    long = "a film " * 100
    for route, name in (("embeddings", "bert"), ("classify", "labels")):
        fields = {"model": name, "input": [TEXTS[0], long]}
        refused = server.http.post(f"/v1/{route}", json=fields)
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        cut = ask(server, route, truncate=True, **fields)
        assert cut["truncated"] == 1 and len(cut["data"]) == 2


@pytest.mark.parametrize(
    ("route", "fields", "code"),
    [
        ("classify", {"model": "tagger", "input": "a"}, "model_not_supported"),
        ("tag", {"model": "labels", "input": "a"}, "model_not_supported"),
        ("answer", {"model": "labels", "question": "a", "context": "b"}, "model_not_supported"),
        ("answer", {"model": "answers", "question": "a"}, "missing_required_parameter"),
        ("translate", {"model": "bert", "input": "a"}, "model_not_supported"),
        ("summarise", {"model": "bert", "input": "a", "stream": True}, "model_not_supported"),
        ("summarise", {"model": "t5", "input": "a", "stream_options": {}}, "invalid_value"),
        ("rerank", {"model": "labels", "query": "a", "documents": ["b"]}, "model_not_supported"),
        ("decisions", {"model": "bert", "input": "a", "questions": [
            {"type": "predicate", "instructions": "b"}]}, "model_not_supported"),
        ("decisions", {"model": "labels", "input": "a", "questions": [
            {"type": "predicate", "instructions": "no label"}]}, "invalid_value"),
        ("decisions", {"model": "labels", "input": "a", "questions": [
            {"type": "choice", "instructions": "b", "choices": [{"value": "x"}, {"value": "x"}]}]},
         "invalid_value"),
        ("decisions", {"model": "t5", "input": "a " * 5000, "questions": [
            {"type": "predicate", "instructions": "b"}]}, "context_length_exceeded"),
        ("classify", {"model": "labels", "input": ""}, "invalid_value"),
        ("classify", {"model": "labels", "input": [["a", "b"]]}, "invalid_value"),
        ("chat/completions", {"model": "bert", "messages": [{"role": "user", "content": "a"}]},
         "model_not_supported"),
    ],
)  # fmt: skip
def test_what_a_model_does_not_do_is_refused(server, route, fields, code) -> None:
    answer = server.http.post(f"/v1/{route}", json=fields)
    assert answer.status_code == 400 and answer.json()["error"]["code"] == code, answer.text


def test_calls_that_come_together_are_computed_together(server) -> None:
    """And one that fails does not fail the others."""
    answers = []

    def call(index):
        text = "a film " * 100 if index == 5 else TEXTS[index % 3]
        fields = {"model": "labels", "input": text}
        answers.append((index, server.http.post("/v1/classify", json=fields)))

    threads = [threading.Thread(target=call, args=(index,)) for index in range(12)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert {index for index, each in answers if each.status_code != 200} == {5}
    count = 'langue_batch_texts_count{model="labels"}'
    lines = server.http.get("/metrics").text.splitlines()
    assert any(line.startswith(count) for line in lines)
