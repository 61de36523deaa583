"""Bad input at the command line: one line that names file, line and remedy, exit code 2, and
nothing left behind."""

import errno
import gzip
import io
import json
import os
import subprocess
import sys

import pytest

from langue.cli import run
from tests.tiny import reviews, tiny_bert, write_jsonl


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("model"))


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


GOOD = reviews(60)
LONG = [
    {"text": f"{row['text']} {i}", "label": row["label"]} for i, row in enumerate(reviews(5000))
]
FAULTS = {
    "missing-column": ("a.csv", b"review,label\nfine film,pos\n", "a.csv", "no column 'text'",
    "--columns text=review"),
    "empty-text": ("a.jsonl", lines([*GOOD[:7], {"text": "  ", "label": "pos"}, *GOOD[8:]]),
    "line 8", "empty", "drop"),
    "one-class": ("a.jsonl", lines([{"text": f"{i}", "label": "pos"} for i in range(40)]), "",
    "'pos'", "two labels"),
    "bad-json": ("a.jsonl", lines(LONG[:4811]) + '{"text": "cut\n' + lines(LONG[4812:]),
    "line 4812", "JSON", ""),
    "encoding": ("a.jsonl", lines(GOOD).encode() + '{"text": "电影"}\n'.encode("gb18030"),
    "line 61", "UTF-8", ""),
    "cut-gz": ("a.jsonl.gz", gzip.compress(lines(LONG).encode())[:-2000], "a.jsonl.gz", "",
    "again"),
    "empty-file": ("a.jsonl", b"", "a.jsonl", "", ""),
    "unknown-kind": ("a.docx", b"PK", "a.docx", "", ".csv"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_data(model, tmp_path, capsys, fault):
    name, content, *words = FAULTS[fault]
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    code = run(
        ["finetune", "--model", str(model), "--data", str(file), "--out", str(tmp_path / "run")]
    )
    says = capsys.readouterr().err.strip()
    assert code == 2, says
    assert says.startswith("langue: error: ") and "\n" not in says and "Traceback" not in says
    assert str(file) in says or fault == "one-class"
    for word in words:
        assert word in says
    assert not (tmp_path / "run").exists()


def test_an_empty_split_and_a_label_unseen_in_training(model, tmp_path, capsys):
    write_jsonl(tmp_path / "train.jsonl", GOOD)
    (tmp_path / "test.jsonl").write_text("\n\n")
    call = [
        "finetune",
        "--model",
        str(model),
        "--data",
        str(tmp_path),
        "--out",
        str(tmp_path / "run"),
    ]
    assert run(call) == 2
    assert "test.jsonl" in capsys.readouterr().err
    write_jsonl(tmp_path / "test.jsonl", [*GOOD[:5], {"text": "a film", "label": "meh"}])
    assert run(call) == 2
    says = capsys.readouterr().err
    assert (
        "test.jsonl, line 6" in says
        and "'meh' was not seen in training" in says
        and "known labels: neg, pos" in says
    )
    assert not (tmp_path / "run").exists()


def test_scores_that_are_not_numbers(model, tmp_path, capsys):
    write_jsonl(
        tmp_path / "a.jsonl",
        [{"text": f"film {i}", "score": "high" if i == 12 else str(i)} for i in range(40)],
    )
    call = [
        "finetune",
        "--task",
        "regress",
        "--model",
        str(model),
        "--data",
        str(tmp_path / "a.jsonl"),
    ]
    assert run([*call, "--out", str(tmp_path / "run")]) == 2
    says = capsys.readouterr().err
    assert "a.jsonl, line 13" in says and "'high' is not a number" in says


def test_texts_of_every_kind_go_through(model, tmp_path, capsys):
    odd = [
        "word " * 100_000,
        "😀👨‍👩‍👧 🇨🇳",
        "שלום עולם مرحبا",
        "a\u0000b\u0007c\u200b",
        "电影很好看。" * 50,
        '"quoted", and\na new line',
        "\ufeff",
        "a",
    ]
    rows = [
        {"text": text, "label": label} for text, label in zip(odd, ["pos", "neg"] * 4, strict=True)
    ]
    write_jsonl(tmp_path / "a.jsonl", [*GOOD, *rows])
    code = run([
        "finetune", "--model", str(model), "--data", str(tmp_path / "a.jsonl"), "--out",
        str(tmp_path / "run"),
        "train.max_steps=2", "--json",
    ])  # fmt: skip
    assert code == 0, capsys.readouterr().err
    capsys.readouterr()
    for text in odd[:-2]:
        assert run(["predict", str(tmp_path / "run"), "--text", text, "--json"]) == 0
        assert {"label", "score"} <= set(json.loads(capsys.readouterr().out)[0])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "memory is used up; lower train.batch_tokens"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
            "memory is used up",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "f.jsonl"),
            "f.jsonl: cannot be written: No space left",
        ),
        (
            OSError(errno.EFBIG, "File too large"),
            "a file: cannot be written: File too large; free space",
        ),
    ],
)
def test_what_the_machine_lacks_is_no_defect(tmp_path, capsys, monkeypatch, error, said):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr("langue.verbs.tokenize.tokenize", fails)
    assert run(["data", "tokenize", "a.txt", "--tokenizer", "t", "--out", str(tmp_path)]) == 2
    says = capsys.readouterr().err
    assert (
        says.startswith(f"langue: error: {said}")
        and says.endswith("kept\n")
        and says.count("\n") == 1
    )


def test_standard_input_that_is_no_text(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Gr\xfc\xdfe"), "utf-8"))
    assert run(["generate", str(tmp_path)]) == 2
    says = capsys.readouterr().err
    assert says.startswith("langue: error: standard input: not utf-8: ") and "at byte 2" in says


@pytest.mark.parametrize("words", [["--version"], ["settings", "--json"]], ids=["little", "much"])
def test_a_reader_that_goes_away_is_no_noise(words):
    reading, writing = os.pipe()
    os.close(reading)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-m", "langue", *words], stdout=writing, stderr=subprocess.PIPE, env=env
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_debug_shows_where_it_came_from(model, tmp_path):
    from langue.errors import DataError

    with pytest.raises(DataError):
        run(
            [
                "finetune",
                "--model",
                str(model),
                "--data",
                str(tmp_path / "no.csv"),
                "--out",
                str(tmp_path),
                "--debug",
            ]
        )


IN_TURN = """
import json, sys
from langue.cli import run
sys.exit([2, 2] != [run(words) for words in json.loads(sys.argv[1])])
"""


def test_no_compiler_where_one_is_asked_for(tmp_path):
    """In a process of its own, and with nothing that a compiler made before."""
    found = {
        "PATH": "",
        "CXX": "/nowhere/g++",
        "CC": "/nowhere/gcc",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "kept"),
    }
    given = ["--data", str(tmp_path), "--out", str(tmp_path / "run"), "train.compile=true"]
    commands = [["finetune", "--model", ".", *given], ["pretrain", *given]]
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, json.dumps(commands)],
        **{"env": os.environ | found, "capture_output": True, "text": True, "check": False},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith(
            "langue: error: train.compile: PyTorch's compiler does not work here: "
        )
        assert "leave train.compile out" in line
    assert not (tmp_path / "run").exists()
