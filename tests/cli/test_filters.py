"""`langue predict RUN -` and `langue generate MODEL -`: each line of standard input is answered as
soon as it is there."""

import io
import json
import select
import signal
import sys

import pytest

import langue
from langue.cli import run
from tests import forked
from tests.tiny import SHORT, reviews, tiny_bert, write_jsonl
from tests.tiny_decoder import tiny_decoder


@pytest.fixture(scope="module")
def reviewer(tmp_path_factory):
    """A run that was trained for a few steps."""
    root = tmp_path_factory.mktemp("reviewer")
    data = write_jsonl(root / "d" / "train.jsonl", reviews(60))
    model = tiny_bert(root / "m")
    langue.finetune(model=model, data=data, out=root / "run", **SHORT)
    return str(root / "run")


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    return str(tiny_decoder(tmp_path_factory.mktemp("writer") / "m", "llama"))


@pytest.fixture
def given(monkeypatch, capsys):
    """What a command makes of bytes that are piped in: code, objects, what is said."""

    def pipe(content, *words):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        code = run(list(words))
        said = capsys.readouterr()
        objects = [json.loads(line) for line in said.out.splitlines() if line[0] == "{"]
        return code, objects, said.err

    return pipe


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["predict"], ["a good film\n", "a bad film\n"]),
        (["generate"], ['{"prompt": "a"}\n', '\n{"prompt": "b", "max_tokens": 2}\n']),
    ],
)
def test_a_program_that_waits_for_each_answer_gets_it(request, words, lines):
    folder = request.getfixturevalue("reviewer" if words == ["predict"] else "writer")
    child = forked.Piped(forked.command, [*words, folder, "-"])
    try:
        for line in lines:
            child.stdin.write(line)
            child.stdin.flush()
            assert select.select([child.stdout], [], [], 60)[0]
            answer = json.loads(child.stdout.readline())
            assert answer.keys() & {"prediction", "finish_reason"}
        child.send_signal(signal.SIGINT)
        code = child.wait(60)
    finally:
        child.kill()
    assert code == 130 and child.stderr.read() == "langue: interrupted\n"


@pytest.mark.filterwarnings("ignore::langue.LangueWarning")  # of marks that it does not know
def test_texts_a_line_each(reviewer, given, tmp_path):
    texts = ["a good film", "", "a bad { film", '"quoted"']
    content = b"\xef\xbb\xbf" + "\r\n".join(texts).encode()
    code, found, said = given(content, "predict", reviewer, "-")
    assert code == 0 and [each["text"] for each in found] == texts
    filled = [text for text in texts if text]
    expected = langue.load(reviewer, dtype="auto").predict(filled)
    assert [each["prediction"] for each in found if each["text"]] == expected
    assert found[1]["prediction"] is None and "the first: line 2" in said
    out = tmp_path / "out.jsonl"
    words = ["predict", reviewer, "--data", "-", "--all", "--out", str(out)]
    code, shown, _ = given(content, *words)
    assert code == 0 and shown == []
    kept = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert len(kept) == 4 and len(kept[0]["prediction"]) == 2


def test_objects_keep_their_other_keys(reviewer, given):
    rows = [{"id": 7, "review": "a good film"}, {"review": "a bad film", "id": 8}]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    words = ["predict", reviewer, "-", "--columns", "text=review"]
    code, found, _ = given(content, *words)
    assert code == 0
    expected = langue.load(reviewer, dtype="auto").predict([row["review"] for row in rows])
    assert found == [
        {**row, "prediction": answer} for row, answer in zip(rows, expected, strict=True)
    ]
    for wrong, says in [
        (b"a film\n", "not a JSON object, and the first line is one"),
        (b'{"id": 9}\n', "text"),
        (b"gr\xfcn\n", "not UTF-8"),
    ]:
        code, found, said = given(content + wrong, *words)
        assert code == 2 and len(found) == 2  # those before it are answered
        assert "standard input, line 3" in said and says in said


def test_what_is_no_dash(reviewer, writer, given):
    code, _, said = given(b"", "predict", reviewer, "x")
    assert code == 2 and "--data FILE, or -" in said
    code, _, said = given(b"", "generate", writer, "-", "--data", "x.jsonl")
    assert code == 2 and "given together" in said
    code, found, _ = given(b"", "predict", reviewer, "-")
    assert code == 0 and found == []
