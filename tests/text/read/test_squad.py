"""Questions with answers, nested as SQuAD and CMRC publish them or flat, come in one form."""

import json
import time

import datasets
import pytest

from langue.errors import DataError
from langue.text.read.source import read

NEED = ("question", "context", "answers")
OPTIONAL = ("id", "title", "is_impossible", "plausible_answers")
CONTEXT = "Denver won 24-10."
ANSWER = {"text": "Denver", "start": 0}


def nested(**question):
    asked = {"id": "q1", "question": "Who won?"} | question
    return {
        "version": "v2.0",
        "data": [{"title": "Bowl", "paragraphs": [{"context": CONTEXT, "qas": [asked]}]}],
    }


def table(data, **options):
    return read(data, need=NEED, optional=OPTIONAL, split=False, **options)


def written(tmp_path, value):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(value))
    return file


def test_nested_files_become_a_row_a_question(tmp_path):
    one = nested(answers=[{"text": "Denver", "answer_start": 0}])
    source = table(written(tmp_path, one))
    assert source.test.rows[0] == {
        "id": "q1",
        "question": "Who won?",
        "context": CONTEXT,
        "title": "Bowl",
        "answers": [ANSWER],
    }
    two = nested(is_impossible=True, plausible_answers=[{"text": "24", "answer_start": 11}])
    paragraph = two["data"][0]["paragraphs"][0]
    paragraph["qas"] += [{"id": "q1", "question": "Score?", "answers": []}]
    two["data"] += one["data"]
    source = table(written(tmp_path, two))
    assert source.test.column("answers") == [[], [], [ANSWER]]
    assert source.test.column("plausible_answers")[0] == [{"text": "24", "start": 11}]
    assert source.test.column("is_impossible") == [True, None, None]
    assert source.test.where(2).endswith("a.json, row 3")
    assert source.notes == [f"{tmp_path / 'a.json'}: 2 rows with an id that another row has"]


def test_the_first_files_of_cmrc(tmp_path):
    asked = {"query_id": "T1", "query_text": "谁？", "answers": ["丹佛", "丹佛队"]}
    rows = [{"context_id": "T", "context_text": "丹佛队赢了。", "qas": [asked], "title": "赛"}]
    row = table(written(tmp_path, rows)).test.rows[0]
    assert (row["id"], row["question"], row["title"]) == ("T1", "谁？", "赛")
    assert row["answers"] == [{"text": "丹佛", "start": -1}, {"text": "丹佛队", "start": -1}]


@pytest.mark.parametrize(
    "answers",
    [
        [ANSWER],
        [{"text": "Denver", "answer_start": 0}],
        {"text": ["Denver"], "answer_start": [0]},
        {"text": "Denver", "answer_start": 0},
    ],
)
def test_flat_records(tmp_path, answers):
    row = {"question": "Who?", "context": CONTEXT, "answers": answers}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"answers": []}))
    published = datasets.Dataset.from_list([row])
    published.to_parquet(tmp_path / "a.parquet")
    for data in (tmp_path / "a.jsonl", [row], published, tmp_path / "a.parquet"):
        assert table(data).test.column("answers")[0] == [ANSWER]
    assert table([row | {"answers": "Denver"}]).test.column("answers") == [[ANSWER | {"start": -1}]]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (nested(answers=[{"text": 3}]), "row 1, answer 1: 3 is no text; write them as"),
        (nested(answers=[{"text": "a", "answer_start": "3"}]), "its start is '3', not a whole"),
        (nested(answers={"text": ["a"], "answer_start": []}), "of different numbers: 1 of 'text'"),
        (nested(question=None), "article 1, paragraph 1, question 1: there is no question; write"),
        ({"data": [{"paragraphs": 3}]}, "article 1: its list of paragraphs is a int"),
        ({"data": [{"paragraphs": [{"qas": []}]}]}, "paragraph 1: there is no context"),
        ({"data": [{"paragraphs": [{"context": "a"}]}]}, "there is no list of questions (qas)"),
        ({"data": [{"paragraphs": []}]}, "there are no rows in it"),
        (nested(question=" ", answers=[]), "row 1: the question is empty"),
    ],
)
def test_what_is_missing_is_named(tmp_path, value, says):
    file = written(tmp_path, value)
    with pytest.raises(DataError) as caught:
        table(file)
    assert str(caught.value).startswith(str(file)) and says in str(caught.value)


def test_long_contexts_and_shared_data_are_read_fast(tmp_path, shared_data):
    value = nested(answers=[])
    paragraph = value["data"][0]["paragraphs"][0]
    paragraph["context"] = "词 " * 250_000
    paragraph["qas"] *= 30
    file = written(tmp_path, value)
    begun = time.process_time()
    assert len(table(file).test) == 30
    sizes = {
        name: len(table(shared_data(name) / "train.jsonl.gz").test)
        for name in ("squad", "cmrc2018")
    }
    assert time.process_time() - begun < 5
    assert sizes == {"squad": 8889, "cmrc2018": 2562}
