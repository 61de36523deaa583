"""Predictions of files and frames: what is written, in which format, and that nothing is lost."""

import csv
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import langue
from langue.cli import run as command
from langue.errors import RunError, SettingsError
from tests import forked
from tests.runs.child_predict import predict_slowly
from tests.tiny import reviews, tiny_bert, write_jsonl

ROWS = [row | {"id": f"r{i}", "stars": i % 5} for i, row in enumerate(reviews(60))]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    model = tiny_bert(folder / "model")
    langue.finetune(model=model, data=ROWS, out=folder / "run", train__max_steps=2)
    return folder / "run"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows: list[Any] = [*ROWS, {"text": " ", "id": 'a "quoted", id', "stars": 1, "label": "pos"}]
    return write_jsonl(tmp_path / "rows.jsonl", rows)


def rows_of(file: Path) -> list[dict[str, Any]]:
    if file.suffix == ".parquet":
        return pq.read_table(file).to_pylist()
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    delimiter = "\t" if file.suffix == ".tsv" else ","
    with file.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter=delimiter))


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "p.tsv", "p.parquet"])
def test_the_name_says_the_format(run: Path, data: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    expected = langue.predict(run, data=data)
    assert langue.predict(run, data=data, out=out, keep="id,stars") == []
    rows = rows_of(out)
    given = [json.loads(line) for line in data.read_text().splitlines()]
    assert [row["id"] for row in rows] == [row["id"] for row in given]
    assert [row["text"] for row in rows] == [row["text"] for row in given]
    assert [str(row["stars"]) for row in rows] == [str(row["stars"]) for row in given]
    assert "label" not in rows[0], "it was not asked for"
    if "prediction" in rows[0]:
        assert [row["prediction"] for row in rows] == expected
    else:
        labels = [row["predicted_label"] or None for row in rows]
        assert labels == [each and each["label"] for each in expected]
        scores = [float(row["predicted_score"]) for row in rows[:-1]]
        assert scores == [each["score"] for each in expected[:-1]]
    assert [each.name for each in tmp_path.iterdir()] != [".p.csv.partial"]
    assert not list(tmp_path.glob(".*partial"))


def test_all_other_columns_are_kept(run: Path, data: Path, tmp_path: Path) -> None:
    langue.predict(run, data=data, out=tmp_path / "p.csv", keep="all")
    (first, *_) = rows_of(tmp_path / "p.csv")
    assert list(first) == ["text", "label", "id", "stars", "predicted_label", "predicted_score"]


def test_invalid_arguments_are_one_line_errors(run: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="xlsx is not written; name it .jsonl"):
        langue.predict(run, data=data, out=tmp_path / "p.xlsx")
    with pytest.raises(langue.LangueError, match="no column 'ident'"):
        langue.predict(run, data=data, out=tmp_path / "p.csv", keep="ident")
    rows = [row | {"prediction": 1} for row in ROWS]
    with pytest.raises(SettingsError, match="'prediction' is kept"):
        langue.predict(run, data=rows, out=tmp_path / "p.csv", keep="all")
    with pytest.raises(SettingsError, match="--keep names columns of --data"):
        langue.predict(run, texts=["a"], keep="id")
    with pytest.raises(SettingsError, match="batch_tokens = 0"):
        langue.predict(run, texts=["a"], batch_tokens=0)
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(SettingsError, match="'gpu0' is not known"):
        langue.predict(run, data=data, device="gpu0")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--keep", "id"], "--keep names columns of --data FILE"),
        (["--resume"], "--resume goes on with the --out of --data FILE"),
        (["--pair", "a"], "0 --text but 1 --pair"),
    ],
)
def test_options_that_standard_input_cannot_have_are_refused(
    run: Path, options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["predict", str(run), "-", *options]) == 2
    assert says in capsys.readouterr().err


def test_a_frame_comes_back_as_one(run: Path) -> None:
    frame = pd.DataFrame(ROWS).set_index("id").sample(frac=1.0, random_state=0)
    found = langue.predict(run, data=frame, keep=["stars"])
    assert list(found.index) == list(frame.index) and found.index.name == "id"
    assert list(found.columns) == ["stars", "label", "score"]
    assert list(found["stars"]) == list(frame["stars"])
    expected = [each["label"] for each in langue.predict(run, texts=list(frame["text"]))]
    assert list(found["label"]) == expected


def stop_after_eight(words: list[str], sent: signal.Signals, folder: Path) -> tuple[int, str]:
    """Exit code and output of a slow command that gets this signal once eight rows are written."""
    counter = folder / "counter.txt"
    output = folder / "output.txt"
    child = forked.start(predict_slowly, words, counter, output=output)
    deadline = time.monotonic() + 120
    while not (counter.exists() and counter.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert child.pid is not None
    os.kill(child.pid, sent)
    return forked.wait(child, 300), output.read_text()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_command_keeps_its_predictions_and_resumes(
    run: Path, data: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    whole = tmp_path / "whole.csv"
    out = tmp_path / "out.csv"
    langue.predict(run, data=data, out=whole, keep="id")
    words = ["predict", str(run), "--data", str(data), "--keep", "id", "--out", str(out)]
    code, said = stop_after_eight(words, sent, tmp_path)
    partial = tmp_path / ".out.csv.partial"
    kept = partial.read_text("utf-8").splitlines()
    assert len(kept) >= 9 and not out.exists()
    if sent is signal.SIGINT:
        assert code == 130
        assert "of 61 rows are kept; the same command with --resume goes on" in said
    with pytest.raises(RunError, match="go on with --resume, or begin anew with --force"):
        langue.predict(run, data=data, out=out, keep="id")
    with pytest.raises(RunError, match="of another model, other data or options"):
        langue.predict(run, data=data, out=out, keep="id", top=1, resume=True)
    # a mark that shows that these rows are not predicted again
    marked = [*kept[:2], kept[2].replace('"prediction"', '"prediction" '), *kept[3:]]
    partial.write_text("\n".join(marked) + '\n{"text": "half a li', "utf-8")
    assert command([*words, "--resume"]) == 0
    assert not partial.exists()
    assert [row["id"] for row in rows_of(out)] == [row["id"] for row in rows_of(whole)]
    for one, other in zip(rows_of(out), rows_of(whole), strict=True):
        assert one["predicted_label"] == other["predicted_label"]
        if one["predicted_score"]:
            assert float(one["predicted_score"]) == pytest.approx(
                float(other["predicted_score"]), abs=1e-3
            )


def test_changed_data_are_not_resumed(run: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    words = ["predict", str(run), "--data", str(data), "--out", str(out)]
    code, _ = stop_after_eight(words, signal.SIGINT, tmp_path)
    assert code == 130
    data.write_text(data.read_text().replace(ROWS[0]["text"], "another text", 1))
    with pytest.raises(RunError, match=r"rows.jsonl, line 1: the data is not what it was"):
        langue.predict(run, data=data, out=out, resume=True)


def test_tokens_of_a_batch_and_quiet(
    run: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from langue.tasks import task

    seen = []
    original = task.sorted_batches
    monkeypatch.setattr(
        task, "sorted_batches", lambda lengths, most: seen.append(most) or original(lengths, most)
    )
    words = ["predict", str(run), "--data", str(data), "--json"]
    assert command([*words, "--batch-tokens", "64", "--device", "cpu", "--quiet"]) == 0
    streams = capsys.readouterr()
    assert set(seen) == {64} and streams.err == "" and len(json.loads(streams.out)) == 61
    assert "LANGUE_DEVICE" not in os.environ
    assert command(words) == 0
    assert "nothing in them" in capsys.readouterr().err
