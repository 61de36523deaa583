"""One table in other clothes is the same table: formats, dialects, storage of strings, and tables
of other libraries."""

import itertools
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from langue.errors import DataError
from langue.runs.prepare import data_fingerprint
from langue.tasks.classify import Classify
from langue.tasks.regress import Regress
from langue.text.read.source import read

TEXTS = ["good, really", 'so "bad"', "fine\nday", "née; 1|2", "NA", "1"]
FRAME = pd.DataFrame({"text": TEXTS, "label": ["pos", "neg", "pos", "neg", "pos", "neg"]})
PLAIN = pa.table({"text": TEXTS, "label": FRAME["label"].tolist()})
NUMBERED = {"text": "1", "label": "2"}


def digest(data, task=Classify, **kwargs):
    source = read(data, need=task.columns.required, split=False, **kwargs)
    given = task.Options()
    fitted = task.fit(source.test, given)
    return data_fingerprint(fitted, source)["test, as read"]


@pytest.fixture(scope="module")
def right():
    return digest(FRAME.to_dict("records"))


STORED = {
    "plain": (pa.string(), pa.string()),
    "large": (pa.large_string(), pa.large_string()),
    "view": (pa.string_view(), pa.string_view()),
    "categories": (pa.string(), pa.dictionary(pa.int32(), pa.string())),
    "few categories": (pa.large_string(), pa.dictionary(pa.int8(), pa.large_string())),
    "all categories": (pa.dictionary(pa.int32(), pa.string()),) * 2,
    "bytes": (pa.binary(), pa.binary()),
    "large bytes": (pa.large_binary(), pa.large_binary()),
    "views of bytes": (pa.binary_view(), pa.binary_view()),
}


@pytest.mark.parametrize("stored", STORED)
def test_parquet_and_arrow_however_strings_are_stored(tmp_path, right, stored):
    table = PLAIN.cast(pa.schema(list(zip(("text", "label"), STORED[stored], strict=True))))
    pq.write_table(table, tmp_path / "a.parquet")
    assert digest(tmp_path / "a.parquet") == right
    assert digest(table) == right
    assert digest(table.to_reader(max_chunksize=2)) == right


def test_parquet_in_groups_of_rows_and_in_shards_of_several_kinds(tmp_path, right):
    pq.write_table(PLAIN, tmp_path / "a.parquet", row_group_size=2, compression="zstd")
    assert digest(tmp_path / "a.parquet") == right
    kinds = itertools.cycle(STORED.values())
    for row, kind in zip(range(len(PLAIN)), kinds, strict=False):
        schema = pa.schema(list(zip(("text", "label"), kind, strict=True)))
        shard = f"test-{row:05d}-of-{len(PLAIN):05d}.parquet"
        pq.write_table(PLAIN.slice(row, 1).cast(schema), tmp_path / shard)
    assert digest(tmp_path) == right


@pytest.mark.parametrize("orient", ["records", "split", "index", "columns", "values", "table"])
@pytest.mark.parametrize("index", [None, list("abcdef")])
def test_json_in_each_orient_of_pandas(tmp_path, right, orient, index):
    frame = FRAME if index is None else FRAME.set_index(pd.Index(index))
    frame.to_json(tmp_path / "a.json", orient=orient)
    columns = NUMBERED if orient == "values" else {}
    assert digest(tmp_path / "a.json", columns=columns) == right


def test_json_lines_and_lists_by_column(tmp_path, right):
    FRAME.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    (tmp_path / "a.json").write_text(json.dumps(FRAME.to_dict("list")))
    assert digest(tmp_path / "a.jsonl") == digest(tmp_path / "a.json") == right


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_dialects_of_csv(tmp_path, right, separator, encoding):
    file = tmp_path / "a.csv"
    for quoting, end in itertools.product((0, 1, 2), ("\n", "\r\n")):
        form = {"sep": separator, "quoting": quoting, "index": False}
        FRAME.to_csv(file, lineterminator=end, encoding=encoding, **form)
        assert digest(file) == right, (quoting, end)
    file.write_text(f"sep={separator}\n" + FRAME.to_csv(**form), encoding)
    assert digest(file) == right
    file.write_text(FRAME.to_csv(**form, header=False), encoding)
    assert digest(file, columns=NUMBERED) == right


def test_frames_given_in_python(right):
    assert digest(FRAME) == right
    assert digest(FRAME.astype({"label": "category"})) == right
    assert digest(FRAME.astype(object).set_index(pd.Index(list("abcdef")))) == right
    mixed = FRAME.assign(other=np.array([1, "a", 2, None, 3, {}], dtype=object))
    assert digest(mixed) == right
    assert digest({"test": PLAIN.to_batches()[0]}) == right
    with pytest.raises(DataError, match="no column 'label'"):
        digest(FRAME[["text"]])


def test_frames_of_polars(right):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(FRAME.to_dict("list"))
    for kind in (polars.String, polars.Categorical, polars.Enum(["neg", "pos"])):
        assert digest(frame.with_columns(polars.col("label").cast(kind))) == right
    with pytest.raises(DataError, match=r"give data.collect\(\)"):
        digest(frame.lazy())


def test_a_workbook(tmp_path, right):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["text", "label", None])
    for row in FRAME.itertuples(index=False):
        sheet.append(list(row))
        sheet.append([])
    book.create_sheet("more")
    book.save(tmp_path / "a.xlsx")
    assert digest(tmp_path / "a.xlsx") == right
    source = read(tmp_path / "a.xlsx", need=["text", "label"], split=False)
    assert "is read, and not more" in source.notes[0]
    assert source.test.where(1) == f"{tmp_path / 'a.xlsx'}, row 4"
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="not a readable workbook"):
        digest(tmp_path / "a.xlsx")


def test_numbers_in_other_clothes(tmp_path):
    scores = [1100.5, 0.25, -3.0, 12.0]
    frame = pd.DataFrame({"text": list("abcd"), "score": scores})
    right = digest(frame.to_dict("records"), Regress)
    assert digest(frame, Regress) == right
    for name, form in {
        "a": {},
        "b": {"sep": ";", "decimal": ","},
        "c": {"sep": ";"},
        "d": {"float_format": "{:,.2f}".format},
        "e": {"float_format": lambda score: f"{score * 100:g}%"},
    }.items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False, **form)
        assert digest(tmp_path / f"{name}.csv", Regress) == right, name
