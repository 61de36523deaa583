"""What a path may be, and what may stand where a label or a score should: one line at the command
line, code 2."""

import contextlib
import io
import json
import os
import pickle
import shlex
import warnings
from pathlib import Path

import pytest

from langue.cli import run
from langue.errors import DataError, ModelError
from langue.hub.weights import read_weights
from langue.text.read.source import read
from tests import forked
from tests.tiny import reviews, tiny_bert, write_jsonl


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a run 😀"
    write_jsonl(data := folder.parent / "train.jsonl", reviews(60))
    call = ["finetune", "--model", str(model), "--data", str(data), "--out", str(folder)]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert run([*call, "train.max_steps=1"]) == 0
    return folder, printed.getvalue()


def said(capsys, words):
    assert run(words) == 2
    says = capsys.readouterr().err.strip()
    assert says.startswith("langue: error: ") and "\n" not in says, says
    return says


@pytest.mark.parametrize("label", [[["a"]], [{"x": "a"}], [[]]])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_labels_within_labels(model, tmp_path, capsys, label, kind):
    import pandas

    rows = [{"text": f"{row['text']} {i}", "label": label} for i, row in enumerate(reviews(40))]
    file = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        write_jsonl(file, rows)
    else:
        pandas.DataFrame(rows).to_parquet(file)
    says = said(
        capsys,
        ["data", "preview", "--model", str(model), "--data", str(file), "task.multi_label=true"],
    )
    assert str(file) in says and "list or an object" in says


@pytest.mark.parametrize("before", [0, 11], ids=["first", "after numbers"])
@pytest.mark.parametrize("number", [0.5, 2])
def test_true_is_no_score_wherever_it_stands(model, tmp_path, capsys, before, number):
    rows = [
        {"text": f"{row['text']} {i}", "score": number + i} for i, row in enumerate(reviews(40))
    ]
    rows[before]["score"] = True
    write_jsonl(tmp_path / "a.jsonl", rows)
    call = [
        "data",
        "preview",
        "--task",
        "regress",
        "--model",
        str(model),
        "--data",
        str(tmp_path / "a.jsonl"),
    ]
    says = said(capsys, call)
    assert f"line {before + 1}" in says and "'True' is not a number" in says


def test_an_output_that_is_a_link_to_itself_is_replaced(finished, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert (
        run(["predict", str(finished[0]), "--text", "a fine film", "--out", str(tmp_path / "loop")])
        == 0
    )
    assert json.loads((tmp_path / "loop").read_text("utf-8"))["text"] == "a fine film"


def test_a_run_that_is_a_link_to_itself_cannot_be_written(model, tmp_path, capsys):
    write_jsonl(tmp_path / "train.jsonl", reviews(60))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    data = ["--data", str(tmp_path / "train.jsonl"), "--force", "train.max_steps=1"]
    assert run(["finetune", "--model", str(model), "--out", str(tmp_path / "loop"), *data]) == 2
    assert "loop: cannot be written" in capsys.readouterr().err.splitlines()[-1]


def test_what_is_read_is_not_replaced_by_what_is_said_of_it(finished, tmp_path, capsys):
    write_jsonl(tmp_path / "a.jsonl", reviews(10))
    before = (tmp_path / "a.jsonl").read_bytes()
    for data in (tmp_path / "a.jsonl", tmp_path):
        call = [
            "predict",
            str(finished[0]),
            "--data",
            str(data),
            "--out",
            str(tmp_path / "a.jsonl"),
            "--force",
        ]
        assert "is read, and --force would replace it" in said(capsys, call)
    assert (tmp_path / "a.jsonl").read_bytes() == before


def test_what_to_type_next_can_be_typed(finished):
    folder, printed = finished
    line = next(line for line in printed.splitlines() if line.startswith("Use it: "))
    words = shlex.split(line.removeprefix("Use it: "))
    assert words == ["langue", "predict", str(folder), "--text", "..."]


def test_a_name_with_a_line_end_stays_on_its_line(model, capsys):
    says = said(capsys, ["data", "preview", "--model", str(model), "--data", "a\nb.csv"])
    assert "a\\nb.csv" in says


@pytest.mark.parametrize("name", ["", "  "])
def test_data_of_no_name_is_not_this_folder(model, tmp_path, capsys, monkeypatch, name):
    write_jsonl(tmp_path / "train.jsonl", reviews(40))
    monkeypatch.chdir(tmp_path)
    assert "empty name" in said(capsys, ["data", "preview", "--model", str(model), "--data", name])
    assert "empty name" in said(capsys, ["data", "inspect", name])
    with pytest.raises(DataError, match="empty name"):
        read(name)


@pytest.mark.skipif(
    os.geteuid() == 0 and not hasattr(os, "setresuid"), reason="root may read everything"
)
def test_a_folder_that_may_not_be_looked_into(finished, model, tmp_path):
    """As somebody else where the tests are root's, whom no right stops."""
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0)
    program = "import os, sys\nfrom langue.cli import run\n"
    if os.geteuid() == 0:
        program += "import langue.verbs.inspect\nos.setresuid(65534, 65534, 65534)\n"
    program += f"sys.exit(run(['inspect', {str(folder)!r}]))"
    done = forked.run_script(program)
    assert done.returncode == 2, done.stderr
    assert "ermission denied" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.skipif(
    os.geteuid() == 0 and not hasattr(os, "seteuid"), reason="root may read everything"
)
@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "pytorch_model.bin",
        "flax_model.msgpack",
        "tf_model.h5",
        "model.ckpt.index",
    ],
)
def test_weights_that_may_not_be_read_are_not_called_damaged(tmp_path, monkeypatch, name):
    (tmp_path / name).touch(mode=0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # the folders above may be root's alone
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(
            ModelError, match=f"^{name}: cannot be read: Permission denied; check its permissions"
        ):
            read_weights(Path())
    finally:
        os.seteuid(own)


def test_a_refused_pickle_is_one_error_and_no_warning(tmp_path):
    with (tmp_path / "pytorch_model.bin").open("wb") as handle:
        pickle.dump({"a": object()}, handle, protocol=4)
    with warnings.catch_warnings(), pytest.raises(ModelError, match="refused"):
        warnings.simplefilter("error")
        read_weights(tmp_path)
