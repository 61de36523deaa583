"""Reading: every format, compression and shape of data gives the same rows, unchanged, with their
lines."""

import csv
import gzip
import json
import lzma
import subprocess
import sys

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from langue.errors import DataError
from langue.text.read import arrow
from langue.text.read.source import read
from langue.text.read.split import class_numbers, hold_out, hold_out_groups

HOSTILE = [
    "NA",
    "null",
    "2020-01-01 10:00:00",
    "007",
    "1e5",
    "😀 👩‍👩‍👧",
    "مرحبا \u202eabc",
    "a\x00b\x0b\x1c\x85\u2028c",
    "很好。",
    'say "hi", twice',
    "two\nlines",
    " padded ",
    "word " * 100_000,
]
ROWS = [{"text": text, "label": ["pos", "neg"][i % 2]} for i, text in enumerate(HOSTILE)]
PACK = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def encoded(kind, rows):
    if kind == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if kind == ".json":
        return json.dumps(rows, indent=1).encode()
    if kind == ".parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        return sink.getvalue().to_pybytes()
    import io

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if kind == ".tsv" else ",")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def whole(data, **kwargs):
    """The one table of data that is not divided."""
    return read(data, need=["text", "label"], split=False, **kwargs).test


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_hostile_texts_go_through_unchanged(tmp_path, kind, packed):
    file = tmp_path / f"data{kind}{packed}"
    file.write_bytes(PACK[packed](encoded(kind, ROWS)))
    table = whole(file)
    assert table.column("text") == HOSTILE
    assert table.column("label") == [row["label"] for row in ROWS]
    assert table.rows[0] == ROWS[0] and table.origin == str(file)
    assert sorted(each.name for each in tmp_path.iterdir()) == [file.name]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip), min_size=1, max_size=8
    )
)
def test_any_text_survives_every_format(tmp_path_factory, texts):
    for kind in (".jsonl", ".json", ".csv", ".tsv", ".parquet"):
        # a quoted field of tabs and line breaks can be the bytes of several plain rows
        if kind == ".tsv":
            texts = [text.replace("\t", "-") for text in texts]
        rows = [{"text": text, "label": "x"} for text in texts]
        file = tmp_path_factory.mktemp("any") / f"data{kind}"
        file.write_bytes(encoded(kind, rows))
        assert whole(file).column("text") == texts, kind


def test_lines_are_those_of_the_file(tmp_path):
    made = {
        "a.csv": '\ufefftext,label\r\n"one\r\ntwo",a\r\n\r\nthree,b\r\n"four ""4""",c\r\n',
        "a.tsv": "text\tlabel\none\ta\n\nthree\tb\n",
        "a.jsonl": '{"text": "one", "label": 1}\n\n{"text": "two", "label": 2}',
        "a.conll": "-DOCSTART- O\n\nEU B-ORG\nrejects O\n\n\nPeter B-PER\n",
        "a.txt": "one\n\u2028 two\r\nthree\n\n",
    }
    for name, text in made.items():
        (tmp_path / name).write_bytes(text.encode())
    where = lambda table: [table.where(i).rpartition(" ")[2] for i in range(len(table))]  # noqa: E731
    comma = whole(tmp_path / "a.csv")
    assert comma.column("text") == ["one\r\ntwo", "three", 'four "4"'] and where(comma) == [
        "2",
        "5",
        "6",
    ]
    assert where(comma.select([2, 0])) == ["6", "2"] and where(
        comma.select([2, 0]).select([1])
    ) == ["2"]
    assert comma.where(0) == f"{tmp_path / 'a.csv'}, line 2"
    assert where(whole(tmp_path / "a.tsv")) == ["2", "4"]
    assert where(whole(tmp_path / "a.jsonl")) == ["1", "3"]
    tagged = read(tmp_path / "a.conll", need=["tokens", "tags"], split=False).test
    assert tagged.column("tokens") == [["EU", "rejects"], ["Peter"]] and where(tagged) == ["3", "7"]
    assert tagged.column("tags") == [["B-ORG", "O"], ["B-PER"]]
    plain = read(tmp_path / "a.txt", need=["text"], split=False).test
    assert plain.column("text") == ["one", "\u2028 two", "three"] and where(plain) == [
        "1",
        "2",
        "3",
    ]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("text\nIt was good; really.\n", [{"text": "It was good; really."}]),
        ('text;label;"x, y"\na, b;c;d\n', [{"text": "a, b", "label": "c"}]),
        ('text,label,"x, y"\na, b,c\n', [{"text": "a", "label": " b"}]),
        ('"text", "label"\n"a", "b"\n', [{"text": "a", "label": "b"}]),
        ("text\tlabel\na;b,c\td\n", [{"text": "a;b,c", "label": "d"}]),
    ],
)
def test_separators_of_a_csv_are_those_of_its_header_outside_quotation_marks(
    tmp_path, content, rows
):
    file = tmp_path / "a.csv"
    file.write_text(content)
    assert list(read(file, need=["text"], optional=["label"], split=False).test.rows) == rows


def test_stray_quotes_of_a_tsv_do_not_join_its_rows(tmp_path):
    file = tmp_path / "glue.tsv"
    file.write_text('text\tlabel\n"open\t0\nmiddle\t1\nclose"\t0\n')
    source = read(file, need=["text", "label"], split=False)
    assert source.test.column("text") == ['"open', "middle", 'close"']
    assert "ordinary characters" in source.notes[0]


def test_a_file_changed_in_place_is_read_anew(tmp_path):
    file = tmp_path / "data.csv"
    for text in ("old", "new"):
        file.write_text(f"text,label\n{text},a\n")
        assert whole(file).column("text") == [text]


def test_columns_are_renamed_and_only_wanted_ones_kept(tmp_path):
    file = tmp_path / "reviews.csv"
    file.write_text("id;review;sentiment\n1;good;pos\n2;bad;neg\n")
    table = whole(file, columns={"text": "review", "label": "sentiment"})
    assert table.rows.column_names == ["text", "label"] and table.column("text") == ["good", "bad"]


def test_values_of_mixed_types():
    labels = [None, 1, "a", True, 2**70]
    table = whole([{"text": i, "label": label} for i, label in enumerate(labels)])
    assert table.column("text") == ["0", "1", "2", "3", "4"]
    assert table.column("label") == [None, "1", "a", "True", str(2**70)]
    assert whole([{"text": "a", "label": []}, {"text": "b", "label": ["x"]}]).column("label") == [
        [],
        ["x"],
    ]
    source = read([{"text": "half \ud83d", "label": "a"}], need=["text", "label"], split=False)
    assert source.test.column("text") == ["half \ufffd"] and "surrogate" in source.notes[0]


def test_a_type_that_changes_late_is_found(monkeypatch):
    monkeypatch.setattr(arrow, "ROWS", 2)
    labels = [1, 2, 3, 4.5, 5, 6]
    assert whole([{"text": "t", "label": label} for label in labels]).column("label") == labels
    words = [None, None, 1, 2, "x"]
    assert whole([{"text": "t", "label": word} for word in words]).column("label") == [
        None,
        None,
        "1",
        "2",
        "x",
    ]


def test_a_column_that_comes_late_is_found(monkeypatch):
    monkeypatch.setattr(arrow, "ROWS", 2)
    rows = [{"text": "t"}] * 3 + [{"text": "t", "other": 1}, {"text": "t", "label": 4.5}]
    assert read(rows, need=["text"], optional=["label"], split=False).test.column("label") == [
        None
    ] * 4 + [4.5]
    rows += [{"text": "t", f"other {i}": 1} for i in range(5)]
    assert (
        read(rows, need=["text"], optional=["label"], split=False).test.column("label")[4:]
        == [4.5] + [None] * 5
    )
    with pytest.raises(DataError, match="row 1: the pair is empty"):
        read([*rows, {"text": "t", "pair": "p"}], need=["text"], optional=["pair"], split=False)


def test_what_does_not_fit_in_memory_is_mapped_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow, "SPILL", 1000)
    monkeypatch.setattr(arrow, "ROWS", 7)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{"text": f"row {i}", "label": "ab"[i % 2]} for i in range(100)]
    source = read(rows, need=["text", "label"], stratify="label")
    texts = [
        text for each in (source.train, source.dev, source.test) for text in each.column("text")
    ]
    assert sorted(texts) == sorted(row["text"] for row in rows) and not list(
        (tmp_path / "cache").iterdir()
    )


def test_data_sets_and_class_numbers():
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    data = datasets.Dataset.from_dict(
        {"text": list("abcd"), "label": [0, 1, -1, 1]}, features=features
    )
    assert whole(data).column("label") == ["neg", "pos", None, "pos"]
    assert whole(data.select([3, 0])).column("text") == ["d", "a"]
    divided = datasets.DatasetDict(
        {"train": data, "validation": data, "test": data, "unsupervised": data}
    )
    source = read(divided, need=["text", "label"])
    assert len(source.dev) == 4 and any("unsupervised is not used" in note for note in source.notes)
    assert source.dev.where(1) == "the data set, validation, row 2"


def test_of_several_class_numbers_those_that_are_none_are_left_out():
    several = datasets.Sequence(datasets.ClassLabel(names=["a", "b", "c"]))
    features = datasets.Features({"text": datasets.Value("string"), "label": several})
    labels = [[0], [-1], [2, None, -1, 1], [], None]
    data = datasets.Dataset.from_dict({"text": list("vwxyz"), "label": labels}, features=features)
    assert whole(data).column("label") == [["a"], None, ["c", "b"], [], None]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.list_(pa.binary())])
def test_bytes_of_a_parquet_file_are_words(tmp_path, kind):
    several = pa.types.is_list(kind)
    labels = pa.array([[b"pos"], [b"caf\xc3\xa9"]] if several else [b"pos", b"caf\xc3\xa9"], kind)
    pq.write_table(pa.table({"text": ["a", "b"], "label": labels}), tmp_path / "a.parquet")
    assert whole(tmp_path / "a.parquet").column("label") == (
        [["pos"], ["caf\xe9"]] if several else ["pos", "caf\xe9"]
    )


def test_the_hub(monkeypatch):
    asked = []
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    rows = datasets.Dataset.from_dict(
        {"text": [f"text {i}" for i in range(20)], "label": [0, 1] * 10}, features=features
    )
    bare = datasets.Dataset.from_dict({"text": ["x"], "label": [-1]}, features=features)

    def load_dataset(*names):
        asked.append(names)
        return datasets.DatasetDict({"train": rows, "test": bare})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = read("owner/name:config", need=["text", "label"], stratify="label")
    assert asked == [("owner/name", "config")] and len(source.test) == len(source.dev) == 2
    assert source.train.origin == "owner/name:config:train" and any(
        "left out" in note for note in source.notes
    )


@pytest.mark.parametrize(
    ("texts", "labels", "left"),
    [(["x", "", "z"], [-1, -1, -1], None), (["x", "", "", "z"], [1, -1, -1, 1], ["x", "z"])],
)
def test_whether_a_test_split_has_labels_is_asked_of_the_rows_that_are_left(texts, labels, left):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    train = datasets.Dataset.from_dict(
        {"text": ["a", "b"] * 9, "label": [0, 1] * 9}, features=features
    )
    test = datasets.Dataset.from_dict({"text": texts, "label": labels}, features=features)
    divided = datasets.DatasetDict({"train": train, "dev": train, "test": test})
    source = read(divided, need=["text", "label"], invalid="drop")
    assert (source.test.column("text") if source.test else None) == left
    assert any("has no labels and is left out" in note for note in source.notes) == (left is None)


def test_a_folder_with_shards_and_other_names(tmp_path):
    for i in range(2):
        (tmp_path / f"train-0000{i}-of-00002.jsonl").write_text(
            f'{{"text": "t{i}", "label": 1}}\n' * 3
        )
    (tmp_path / "valid.csv").write_text("text,label\nv,1\n")
    (tmp_path / "README.md").write_text("hello")
    source = read(tmp_path, need=["text", "label"])
    assert source.train.where(4).endswith("train-00001-of-00002.jsonl, line 2")
    assert source.dev.column("text") == ["v"] and source.test is None


@given(
    st.lists(st.integers(0, 4), min_size=3, max_size=60),
    st.floats(0.02, 0.6),
    st.integers(0, 2**40),
)
def test_a_draw_keeps_shares_and_never_takes_a_whole_class(labels, share, seed):
    n_held = min(max(1, round(share * len(labels))), len(labels) - 1)
    classes = class_numbers(labels)
    kept, held = hold_out(len(labels), n_held, seed, classes)
    assert len(held) == n_held and sorted([*kept, *held]) == list(range(len(labels)))
    again = hold_out(len(labels), n_held, seed, classes)
    assert np.array_equal(held, again[1])
    sizes = np.bincount(labels)
    if classes is not None and np.maximum(sizes - 1, 0).sum() >= n_held:
        taken = np.bincount(np.asarray(labels)[held], minlength=len(sizes))
        assert (taken[sizes > 0] < sizes[sizes > 0]).all()
        room = n_held == np.floor(sizes * n_held / len(labels)).sum()
        assert not room or (np.abs(taken - sizes * n_held / len(labels)) < 2).all()


def test_a_split_is_the_same_in_every_process():
    program = (
        "from langue.text.read.source import read;s = read([{'text': f't{i}', 'label': i % 3 and"
        " 'a' or 'b'} for i in range(60)], need=['text', 'label'], stratify='label', seed=3);"
        " print(s.dev.column('text'), s.test.column('text'), len(s.train))"
    )
    out = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
        for _ in range(2)
    }
    dev = ["t10", "t14", "t34", "t36", "t43", "t57"]
    test = ["t6", "t13", "t18", "t37", "t47", "t56"]
    assert out == {f"{dev} {test} 48\n"}


def test_classes_of_one_and_two_examples_and_few_rows():
    labels = ["a"] * 20 + ["b"] * 2 + ["c"]
    source = read(
        [{"text": str(i), "label": each} for i, each in enumerate(labels)],
        need=["text", "label"],
        stratify="label",
    )
    assert set(source.train.column("label")) == {"a", "b", "c"}
    unique = read(
        [{"text": str(i), "label": str(i)} for i in range(3)],
        need=["text", "label"],
        stratify="label",
    )
    assert [len(each) for each in (unique.train, unique.dev, unique.test)] == [1, 1, 1]
    with pytest.raises(DataError, match="2 rows cannot be divided into 3 splits"):
        read([{"text": "a", "label": 1}, {"text": "b", "label": 2}], need=["text"])


def test_real_data(shared_data):
    sizes = {
        "sst2": (6920, 872, 1821),
        "stsb": (5749, 1500, 1379),
        "chnsenticorp": (6213, 776, 776),
    }
    for name, size in sizes.items():
        need = ["text", "pair", "score"] if name == "stsb" else ["text", "label"]
        source = read(shared_data(name), need=need)
        assert (len(source.train), len(source.dev), len(source.test)) == size
    tagged = read(shared_data("conll2003"), need=["tokens", "tags"])
    assert (len(tagged.train), len(tagged.dev), len(tagged.test)) == (14041, 3250, 3453)
    imdb = read(shared_data("imdb") / "test.jsonl.gz", need=["text", "label"], stratify="label")
    assert [len(each) for each in (imdb.train, imdb.dev, imdb.test)] == [20500, 2000, 2500]
    assert imdb.dev.column("label").count("pos") == 1000


@pytest.mark.parametrize("n_held", [1, 30, 60])
def test_rows_of_one_value_stay_together(n_held: int) -> None:
    values = [f"context {number}" for number in range(30) for _ in range(1 + number % 5)]
    found = hold_out_groups(values, n_held, seed=3, left=2)
    assert found is not None
    kept, held = found
    assert sorted([*kept, *held]) == list(range(len(values)))
    sides = [{values[row] for row in part} for part in found]
    assert not sides[0] & sides[1] and len(sides[0]) >= 2 and sides[1]
    assert len(held) <= max(n_held, 5) and len(held) > n_held - 5
    again = hold_out_groups(values, n_held, seed=3, left=2)
    assert again is not None and again[1].tolist() == held.tolist()
    assert hold_out_groups(["a", "a", "b"], 1, seed=0, left=2) is None


def test_splits_that_are_carved_share_no_value() -> None:
    rows = [{"text": f"t{n}", "of": f"group {n // 4}"} for n in range(80)]
    source = read(rows, need=("text",), optional=("of",), together="of")
    found = [set(table.column("of")) for table in (source.train, source.dev, source.test)]
    assert not (found[0] & found[1] or found[0] & found[2] or found[1] & found[2])
    assert [len(table) for table in (source.train, source.dev, source.test)] == [64, 8, 8]
    assert any("those of one of together" in note for note in source.notes)
    alone = read([row | {"of": "one"} for row in rows], need=("text", "of"), together="of")
    assert len(alone.dev) == 8 and any("at random" in note for note in alone.notes)
