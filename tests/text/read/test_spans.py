"""Rows for tagging, as data sets and annotation tools publish them, come in one form."""

import json

import datasets
import pytest

from langue.errors import DataError
from langue.text.read.source import read

TEXT = "Zoë 😀 visits New York"
SPANS = [{"start": 0, "end": 3, "label": "PER"}, {"start": 13, "end": 21, "label": "LOC"}]
TAGS = datasets.Sequence(datasets.ClassLabel(names=["O", "B-PER"]))


def spans_of(data, **options):
    return read(data, need=("text", "spans"), split=False, **options).test


@pytest.mark.parametrize(
    "row",
    [
        {"text": TEXT, "spans": SPANS},
        {"text": TEXT, "entities": [[0, 3, "PER"], (13, 21.0, "LOC")]},
        [TEXT, {"entities": [(0, 3, "PER"), (13, 21, "LOC")]}],
        {"text": TEXT, "spans": {"start": [0, 13], "end": [3, 21], "label": ["PER", "LOC"]}},
        {
            "text": TEXT,
            "entities": [
                {"begin": 0, "end": 3, "entity_group": "PER", "score": 0.9},
                {"start_offset": 13, "end_offset": 21, "labels": ["LOC"]},
            ],
        },
        {
            "tokenized_text": ["Zoë", "😀", "visits", "New", "York"],
            "ner": [[0, 0, "PER"], [3, 4, "LOC"]],
        },
        {
            "data": {"text": TEXT},
            "annotations": [
                {"was_cancelled": True, "result": []},
                {
                    "result": [
                        {"value": {"start": 0, "end": 3, "labels": ["PER"]}},
                        {"value": {"choices": ["good"]}},
                        {"value": {"start": 13, "end": 21, "text": "New York", "labels": ["LOC"]}},
                    ]
                },
            ],
        },
    ],
    ids=["dicts", "triples", "spacy", "columns", "other names", "gliner", "label studio"],
)
def test_every_shape_of_spans_is_read(tmp_path, row):
    (tmp_path / "a.json").write_text(json.dumps([row, row]))
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    for data in ([row], tmp_path / "a.json", tmp_path / "a.jsonl"):
        table = spans_of(data)
        assert table.rows[0] == {"text": TEXT, "spans": SPANS}
    # they do where words with tags are asked for
    assert read([row], need=("tokens", "tags"), split=False).test.rows[0]["spans"] == SPANS


def test_spans_of_a_parquet_file_and_of_datasets(tmp_path):
    wide = [{"begin": each["start"], "end": each["end"], "tag": each["label"]} for each in SPANS]
    data = datasets.Dataset.from_list([{"text": TEXT, "entities": wide}] * 2)
    data.to_parquet(tmp_path / "a.parquet")
    for each in (data, tmp_path / "a.parquet"):
        assert spans_of(each).column("spans") == [SPANS, SPANS]
    bad = datasets.Dataset.from_list([{"text": TEXT, "entities": [{"begin": 5, "end": 2}]}])
    bad.to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="b.parquet, row 1, span 1: a span from 5 to 2 holds no"):
        spans_of(tmp_path / "b.parquet")


def test_rows_without_spans_and_with_several_labels():
    two = {"start": 0, "end": 1, "labels": ["A", "B"]}
    rows = [{"text": "x", "spans": []}, {"text": "y", "spans": None}, {"text": "z", "spans": [two]}]
    labels = [
        None if each is None else [span["label"] for span in each]
        for each in spans_of(rows).column("spans")
    ]
    assert labels == [[], None, ["A", "B"]]


@pytest.mark.parametrize(
    ("spans", "says"),
    [
        ([[0, 99, "A"]], "a span ends at 99, but its text has 20 characters"),
        ([[3, 3, "A"]], "span 1: a span from 3 to 3 holds no characters"),
        ([[0, 1, "A"], [-1, 2, "A"]], "span 2: a span from -1 to 2 holds no characters"),
        ([["0", 1, "A"]], "its start is '0', not a whole number"),
        ([{"start": 0, "label": "A"}], "its end is None, not a whole number"),
        ([[0, 1, ""]], "its label is ''"),
        ([{"start": 0, "end": 1, "labels": []}], "it has no label"),
        (["PER"], "'PER' is no span; write them as [{"),
        ("PER", "the spans are a str, not a list"),
        ({"start": [0], "end": []}, "the spans are of different numbers: 1 of 'start' and 0 of"),
    ],
)
def test_spans_that_cannot_be_are_named(tmp_path, spans, says):
    file = tmp_path / "a.jsonl"
    good = {"text": TEXT[:20], "spans": [[0, 3, "PER"]]}
    file.write_text(json.dumps(good) + "\n\n" + json.dumps({"text": TEXT[:20], "spans": spans}))
    with pytest.raises(DataError) as caught:
        spans_of(file)
    assert str(caught.value).startswith(f"{file}, line 3") and says in str(caught.value)
    if "ends at" in says:
        source = read(file, need=("text", "spans"), split=False, invalid="drop")
        assert len(source.test) == 1 and "1 row dropped, first" in source.notes[0]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            {"tokenized_text": ["a"], "ner": [[0, 1, "A"]]},
            "from word 0 to word 1 where there are 1",
        ),
        ({"tokenized_text": ["a"], "ner": [{"start": 0}]}, "is no span; write it as [0, 1,"),
        ({"data": {"a": "b", "c": "d"}, "annotations": []}, "which of its data is the text"),
        ({"data": {"text": "b"}, "annotations": [{}, {}]}, "it has 2 annotations; keep one"),
        (
            {
                "data": {"text": "😀 a\nb c"},
                "annotations": [
                    {
                        "result": [
                            {"value": {"start": 2, "end": 5, "text": "a\\nb", "labels": ["X"]}},
                            {"value": {"start": 3, "end": 4, "text": "a", "labels": ["X"]}},
                        ]
                    }
                ],
            },
            "span 2: its text is 'a', but the characters from 3 to 4 are",
        ),
    ],
)
def test_records_of_tools_that_cannot_be_are_named(row, says):
    with pytest.raises(DataError, match="the list, row 1") as caught:
        spans_of([row])
    assert says in str(caught.value)


def test_tokens_and_tags_of_json_and_of_class_numbers(tmp_path):
    need = ("tokens", "tags")
    rows = [{"tokens": [], "ner_tags": []}, {"tokens": ["Zoë", 7], "ner_tags": ["B-PER", "O"]}]
    table = read(rows, need=need, split=False, invalid="keep").test
    assert table.rows[1] == {"tokens": ["Zoë", "7"], "tags": ["B-PER", "O"]}
    source = read(rows, need=need, split=False, invalid="drop")
    assert len(source.test) == 1 and "there are no tokens" in source.notes[0]
    words = datasets.Sequence(datasets.Value("string"))
    features = datasets.Features({"tokens": words, "pos_tags": TAGS})
    numbers = [[1, 0], [-1, 1], [-1, -1]]
    data = datasets.Dataset.from_dict(
        {"tokens": [["a", "b"]] * 3, "pos_tags": numbers}, features=features
    )
    data.to_parquet(tmp_path / "a.parquet")
    for each in (data, tmp_path / "a.parquet"):
        # an unknown tag keeps its place beside its token
        tags = read(each, need=need, split=False).test.column("tags")
        assert tags == [["B-PER", "O"], [None, "B-PER"], None]
    both = [{"tokens": ["a"], "ner_tags": ["O"], "pos_tags": ["X"]}]
    with pytest.raises(DataError, match="--columns tags="):
        read(both, need=need, split=False)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "1 tags for 2 tokens; give each token one tag"),
        ({"tokens": "a b", "tags": ["O"]}, "the tokens are a str, not a list of words"),
        ({"tokens": ["a"], "tags": [["O"]]}, "the tags hold a list, not words alone"),
        ({"tokens": ["a", None], "tags": ["O", "O"]}, "the tokens hold a NoneType"),
        ({"text": "a", "tags": ["O"]}, "there is no column 'tokens'"),
    ],
)
def test_words_that_cannot_be_tagged_are_named(tmp_path, row, says):
    file = tmp_path / "a.json"
    file.write_text(json.dumps([row]))
    with pytest.raises(DataError) as caught:
        read(file, need=("tokens", "tags"), split=False)
    assert says in str(caught.value) and str(caught.value).startswith(str(file))
