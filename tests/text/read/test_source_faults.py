"""Files that cannot be used: one line that names file, line and remedy; nothing else is printed or
written."""

import gzip
import json
import lzma

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from langue.errors import DataError
from langue.tasks.classify import Classify
from langue.text.read.source import read

GOOD = '{"text": "fine", "label": 1}\n'
PACK = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.ZstdCompressor().compress}


def refused(data, need=("text", "label"), **kwargs):
    """The message of the DataError that reading must end in."""
    with pytest.raises(DataError) as caught:
        read(data, need=need, **({"synonyms": Classify.columns.synonyms} | kwargs))
    message = str(caught.value)
    assert "\n" not in message and caught.value.do
    return message


@pytest.mark.parametrize(
    ("name", "content", "line", "says"),
    [
        (
            "a.jsonl",
            GOOD * 4811 + '{"text": "x" "label": 1}\n' + GOOD,
            4812,
            "not JSON at column 14",
        ),
        ("a.jsonl", GOOD * 2 + "[1, 2]\n", 3, "a record is a list"),
        ("a.jsonl", GOOD + '{"text": ["x"], "label": 1}\n', 2, "the text is a list"),
        ("a.jsonl", GOOD + '{"text": "x", "label": ["y"]}\n', 2, "the label is a list where"),
        (
            "a.jsonl",
            GOOD + '{"text": " \u3000 ", "label": 1}\n',
            2,
            "the text is empty; fill it in",
        ),
        ("a.jsonl", GOOD + '{"label": 1}\n', 2, "the text is empty"),
        ("a.jsonl", GOOD + "[" * 200_000 + "\n", 2, "JSON"),
        ("a.json", '[\n{"text": "x",\n"label": }]', 3, "not JSON"),
        (
            "a.csv",
            'text,label\n"a\nb",1\nx,1,2\n',
            4,
            "3 fields where the header has 2; put quotation marks",
        ),
        ("a.csv", 'text,label\nx,1\n"y,1\nz,1\n', 3, "a quotation mark is never closed"),
        ("a.csv", 'text,label\nx,1\n"y" z,1\n', 3, "expected after"),
        ("a.csv", "text,label\nx\ry,1\n", 2, "a carriage return stands outside"),
        ("a.csv", "text,text,label\nx,x,1\n", 1, "names 'text' twice"),
        ("a.tsv", "text\tlabel\nx\n", 2, "1 fields where the header has 2"),
        ("a.txt", "one\n\ntwo\n", 2, "the text is empty"),
        ("a.conll", "EU B-ORG\nrejects\n", 2, "1 fields where the first line has 2"),
    ],
)
def test_bad_lines_are_named(tmp_path, name, content, line, says):
    file = tmp_path / name
    file.write_bytes(content.encode())
    need = {"a.txt": ["text"], "a.conll": ["tokens", "tags"]}.get(name, ["text", "label"])
    message = refused(file, need)
    assert message.startswith(f"{file}, line {line}: ") and says in message
    for suffix, pack in PACK.items():
        packed = tmp_path / (name + suffix)
        packed.write_bytes(pack(content.encode()))
        assert refused(packed, need).startswith(f"{packed}, line {line}: ")


def test_files_under_a_wrong_name(tmp_path):
    file = tmp_path / "a.csv"
    for content, says in [
        (gzip.compress(b"x"), ".gz"),
        (b"PK\x03\x04...", "spreadsheet"),
        (b"PAR1", ".parquet"),
    ]:
        file.write_bytes(content)
        assert says in refused(file)
    (tmp_path / "a.csv.gz").write_bytes(b"text,label\n")
    assert "not a readable .gz file" in refused(tmp_path / "a.csv.gz")


@pytest.mark.parametrize("suffix", PACK)
def test_a_compressed_file_cut_short(tmp_path, suffix):
    whole = PACK[suffix](
        "".join(f'{{"text": "row {i * i}", "label": 1}}\n' for i in range(3000)).encode()
    )
    file = tmp_path / f"a.jsonl{suffix}"
    for keep in (len(whole) - 1, len(whole) // 2, 20):
        file.write_bytes(whole[:keep])
        assert "cut short" in refused(file)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_bytes_never_escape_as_another_error(tmp_path_factory, data):
    rows = [{"text": f"row {i}", "label": i % 2} for i in range(30)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    plain = "".join(json.dumps(row) + "\n" for row in rows).encode()
    made = {f".jsonl{suffix}": pack(plain) for suffix, pack in PACK.items()}
    made |= {
        ".jsonl": plain,
        ".csv": b"text,label\n" + b'"a",1\n' * 30,
        ".parquet": sink.getvalue().to_pybytes(),
    }
    made |= {
        ".json": json.dumps(rows).encode(),
        ".conll": b"EU B\n\nrejects O\n",
        ".tsv": b"text\tlabel\na\t1\n",
    }
    suffix = data.draw(st.sampled_from(sorted(made)))
    content = bytearray(made[suffix])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("damaged") / f"a{suffix}"
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        read(
            file, need=["tokens", "tags"] if suffix == ".conll" else ["text", "label"], split=False
        )
    except DataError as error:
        assert str(file) in str(error) and "\n" not in str(error)


def test_empty_files_splits_and_lists(tmp_path):
    for name, content in {
        "train.csv": "text,label\nx,1\n",
        "dev.csv": "text,label\n",
        "test.csv": "",
    }.items():
        (tmp_path / name).write_text(content)
    assert "dev.csv: there are no rows in it" in refused(tmp_path)
    assert "test.csv: there are no rows in it" in refused(tmp_path / "test.csv")
    (tmp_path / "e.json").write_text("[]")
    assert "no rows" in refused(tmp_path / "e.json") and "no rows" in refused([])
    pq.write_table(
        pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.int64())}),
        tmp_path / "e.parquet",
    )
    assert "no rows" in refused(tmp_path / "e.parquet")
    assert "no rows" in refused(datasets.Dataset.from_dict({"text": [], "label": []}))


def test_missing_columns_are_named_with_the_remedy(tmp_path):
    file = tmp_path / "reviews.csv"
    file.write_text("id,review,sentiment\n1,good,pos\n")
    message = refused(file)
    assert "no column 'text' and 'label'; its columns are id, review, sentiment" in message
    assert message.endswith("--columns text=review,label=sentiment")
    assert "'revue'" in refused(file, columns={"text": "revue"}) and "text=review" in refused(
        file, ["text"]
    )
    (tmp_path / "a.txt").write_text("one\n")
    assert "no column 'label'; its columns are text" in refused(tmp_path / "a.txt")
    for data in ([{"sentence": "x"}], datasets.Dataset.from_dict({"sentence": ["x"]})):
        assert "text=sentence" in refused(data, ["text"])


def test_a_file_that_is_not_there(tmp_path):
    (tmp_path / "reviews.csv").write_text("text\nx\n")
    assert f"did you mean {tmp_path / 'reviews.csv'}?" in refused(tmp_path / "review.csv")
    assert "does not exist either" in refused(tmp_path / "nowhere" / "review.csv")
    assert "no such file" in refused("x" * 5000 + ".csv")


def test_folders_that_do_not_say_which_file_is_which(tmp_path):
    (tmp_path / "reviews.csv").write_text("text\nx\n")
    assert "no train, dev or test file in the folder; it holds reviews.csv" in refused(tmp_path)
    for name in ("train.csv", "train.jsonl"):
        (tmp_path / name).write_text("")
    assert "train.csv and train.jsonl could each be train" in refused(tmp_path)
    (tmp_path / "reviews.docx").write_text("")
    assert ".docx is not a format that is read" in refused(tmp_path / "reviews.docx")


def test_empty_texts_are_dropped_where_that_is_wished(tmp_path):
    file = tmp_path / "a.jsonl"
    rows = [{"text": text, "pair": "p", "label": 1} for text in ["a", "", "b", None, "\t", "c"]]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = read(file, need=["text"], optional=["pair"], split=False, invalid="drop")
    assert (
        source.test.column("text") == ["a", "b", "c"] and source.test.where(1) == f"{file}, line 3"
    )
    assert "3 rows dropped for an empty text" in source.notes[0]
    file.write_text('{"text": ""}\n')
    assert "every text is empty" in refused(file, ["text"], invalid="drop")


def test_an_optional_text_that_no_row_has_is_left_out():
    source = read([{"text": "a", "pair": ""}], need=["text"], optional=["pair"], split=False)
    assert source.test.rows.column_names == ["text"]


def test_the_hub_out_of_reach(monkeypatch):
    def load_dataset(*names):
        raise raised

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    raised = datasets.exceptions.DatasetNotFoundError("not there")
    assert "neither a file or folder here nor a data set on the Hub" in refused("owner/name")
    raised = ConnectionError("no route\nto host")
    assert "cannot be read from the Hub: no route; check the network" in refused("owner/name")
    raised = ValueError("Config name is missing.\nPick one of ['a', 'b']")
    assert "owner/name:NAME" in refused("owner/name")


def test_nothing_is_printed_and_the_libraries_speak_as_before(tmp_path, capfd):
    (tmp_path / "a.jsonl").write_text("{")
    before = datasets.utils.logging.get_verbosity(), datasets.utils.are_progress_bars_disabled()
    refused(tmp_path / "a.jsonl")
    assert (
        datasets.utils.logging.get_verbosity(),
        datasets.utils.are_progress_bars_disabled(),
    ) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "held", [[{"a": 1}], [["a"]], [b"\xff\xfe\x00"]], ids=["records", "lists", "bytes"]
)
def test_a_parquet_column_that_holds_no_texts(tmp_path, held):
    pq.write_table(pa.table({"text": held, "label": [1]}), tmp_path / "a.parquet")
    assert "not texts; name another with --columns" in refused(tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": [b"caf\xc3\xa9"], "label": [1]}), tmp_path / "b.parquet")
    assert read(tmp_path / "b.parquet", need=("text", "label"), split=False).test.column(
        "text"
    ) == ["caf\xe9"]


@pytest.mark.parametrize("label", [b"pos", [b"pos"], b""])
def test_bytes_are_no_label(label):
    rows = [{"text": "b", "label": label}, {"text": "a", "label": None}]
    assert refused(rows) == "the list, row 1: the label holds bytes, not text; write it as a string"


def test_columns_that_are_not_read_are_refused_where_targets_are(tmp_path):
    rows = [{"text": "a", "label": "x", "rating": 3}]
    named = {"text": "text", "score": "rating"}
    message = refused(rows, optional=("pair",), columns=named)
    assert (
        message
        == "--columns: score is not read here, but text, label, pair; leave score out, or see"
        " --task"
    )
    assert read(rows, need=("text",), split=False, columns=named).test.column("text") == ["a"]
    assert "pair is not read here, but text" in refused(rows, ("text",), columns={"pair": "rating"})


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{0: "a", 1: "b"}], "a column is called 0, no string"),
        ([{"text": "a", "label": {"\ud800": "\ud800"}}], None),
        ([{"text": "a", "label": ("\ud800",)}], None),
        (
            [{"text": "a", "label": ["a"]}, {"text": "b", "label": [1]}],
            "row 2: the label is a list of other things",
        ),
        ([{"text": "a", "label": ["a", 1]}], "row 1: the label is a list of other things"),
        (
            [{"text": "a", "label": ["a"]}, {"text": "b", "label": "b"}],
            "row 1: the label is a list where other rows",
        ),
    ],
)
def test_records_of_other_kinds_of_things(rows, says):
    if says is None:
        assert "\ufffd" in str(read(rows, need=("text", "label"), split=False).test.column("label"))
    else:
        assert says in refused(rows)


def test_parquet_columns_of_one_name_or_of_an_unknown_type(tmp_path):
    file = tmp_path / "a.parquet"
    texts = pa.array(["a"])
    pq.write_table(pa.table([texts, texts, texts], names=["text", "label", "label"]), file)
    assert f"{file}: two columns are called 'label'" in refused(file)
    pq.write_table(
        pa.table(
            {"text": texts, "label": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))}
        ),
        file,
    )
    assert f"{file}: a column cannot be read: Arrow type map<" in refused(file)


@pytest.mark.parametrize("what", ["iterdir", "is_file", "exists"])
def test_what_may_not_be_read_is_named(tmp_path, monkeypatch, what):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "train.csv").write_text("text,label\na,1\n")
    monkeypatch.setattr(f"pathlib.Path.{what}", refuse)
    assert f"{tmp_path}: cannot be read: Permission denied; check its permissions" in refused(
        tmp_path
    )


def test_the_remedy_for_a_missing_file_in_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    assert f"the folder {tmp_path} cannot be read: Permission denied" in refused(tmp_path / "a.csv")


def test_a_home_that_nobody_has():
    assert (
        refused("~nouser/a.csv")
        == "~nouser/a.csv: whose home ~ is, is not known; write the path out"
    )


@pytest.mark.parametrize("several", [False, True])
def test_class_numbers_beyond_the_names(tmp_path, several):
    one = datasets.ClassLabel(names=["a", "b"])
    label = datasets.Sequence(one) if several else one
    schema = datasets.Features({"text": datasets.Value("string"), "label": label}).arrow_schema
    pq.write_table(
        pa.table({"text": ["x"], "label": [[5]] if several else [5]}, schema=schema),
        tmp_path / "a.parquet",
    )
    assert "the column 'label' has class numbers beyond its 2 names" in refused(
        tmp_path / "a.parquet"
    )
