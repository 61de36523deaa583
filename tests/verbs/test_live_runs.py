"""What a running process works in, no other process takes: real ones, for every verb that replaces
a folder."""

import json

import pytest

import langue
from langue.cli import run as command
from langue.errors import RunError
from langue.files import exclusive_lock, in_use, replace_on_success
from langue.verbs import quickstart
from tests import forked
from tests.tiny import SHORT, reviews, write_jsonl
from tests.verbs.child_live import PRETRAINING, work

BUSY = "another process is at work in it; wait for it, end it, or choose another folder"


class Child:
    """The process, which stops at what it says."""

    def __init__(self, folder):
        self.process = forked.Piped(work, folder)
        self.stands = False

    def reaches(self, what):
        """Have it go on, and wait until it stands there."""
        if self.stands:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        self.stands = True
        said = self.process.stdout.readline()
        assert said == f"{what}\n", self.process.stderr.read()


def everything(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_folder_is_not_taken_from_a_process_at_work_in_it(model, tmp_path, monkeypatch, capsys):
    split = [
        {"text": f"{row['text']} {n}", "label": row["label"]}
        for n, row in enumerate(reviews(40, 0))
    ]
    docstrings = {name: split for name in ("train", "dev", "test")}
    (tmp_path / "given.json").write_text(
        json.dumps({"model": str(model), "docstrings": docstrings})
    )
    (tmp_path / "text.txt").write_text("".join(f"{row['text']}\n" for row in reviews(300, 1)))
    write_jsonl(tmp_path / "data.jsonl", reviews(60, 0))
    monkeypatch.setattr(quickstart, "embedded_model", lambda: model)
    monkeypatch.setattr(quickstart, "build", lambda: docstrings | {"dev": split[:-1]})
    text = tmp_path / "text.txt"
    corpus = tmp_path / "corpus"
    run = tmp_path / "run"
    finetuning = {"model": model, "data": str(tmp_path / "data.jsonl"), "out": run} | SHORT
    pretraining = {"data": str(corpus), "out": tmp_path / "language"} | PRETRAINING
    tokenizing = {"tokenizer": tmp_path / "tokenizer", "out": corpus, "document": "line"}

    def refused(verb, *given, **named):
        before = everything(tmp_path)
        with pytest.raises(RunError) as error:
            verb(*given, **named)
        assert str(error.value).endswith(BUSY), error.value
        assert everything(tmp_path) == before

    child = Child(tmp_path)
    try:
        child.reaches("tokenizer train")
        for force in (False, True):
            refused(langue.train_tokenizer, text, out=tmp_path / "tokenizer", force=force)
        child.reaches("data tokenize")
        for force in (False, True):
            refused(langue.tokenize, text, **tokenizing, force=force)
        for at in ("pretrain begins", "pretrain judges"):
            child.reaches(at)
            for flag in ("force", "resume"):
                refused(langue.pretrain, **pretraining, **{flag: True})
            refused(langue.tokenize, text, **tokenizing, force=True)  # which the run reads
            with in_use(corpus):  # as others may
                pass
        for at in ("finetune begins", "finetune judges"):
            child.reaches(at)
            refused(langue.finetune, **finetuning, force=True)
            if at == "finetune begins":  # nothing is in the folder yet
                refused(langue.finetune, **finetuning)
                continue
            refused(langue.finetune, **finetuning, resume=True)
            words = [
                "--model",
                str(model),
                "--data",
                finetuning["data"],
                "--out",
                str(run),
                "--force",
            ]
            assert command(["finetune", *words]) == 2 and "at work in it" in capsys.readouterr().err
        child.reaches("quickstart begins")
        refused(quickstart.quickstart, tmp_path / "quick", force=True)  # nor its data
    finally:
        child.process.kill()
    for folder in (tmp_path / "run", tmp_path / "language"):  # which ended as if nobody had asked
        assert (folder / "metrics.json").is_file()
        with exclusive_lock(folder):
            pass
    langue.tokenize(text, **tokenizing, force=True)


def test_a_folder_made_for_nothing_goes_again(tmp_path):
    with pytest.raises(ValueError), exclusive_lock(tmp_path / "runs" / "a"):
        raise ValueError
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ValueError), exclusive_lock(tmp_path / "runs" / "a"):
        (tmp_path / "runs" / "a" / "kept").touch()
        raise ValueError
    assert (tmp_path / "runs" / "a" / "kept").is_file()


@pytest.mark.parametrize("flag", ["force", "resume"])
def test_a_run_of_an_earlier_version_is_seen(model, tmp_path, flag):
    """Which locks its checkpoints alone."""
    (tmp_path / "recipe.toml").touch()
    given = {"model": model, "data": reviews(40, 0), "out": tmp_path}
    with exclusive_lock(tmp_path / "checkpoints"), pytest.raises(RunError, match="at work in it"):
        langue.finetune(**given, **{flag: True})
    assert (tmp_path / "recipe.toml").is_file()


def test_what_stands_aside_is_not_taken_either(tmp_path):
    """Of two that replace a folder at once, the second is refused, and takes what the first put
    aside for nobody's."""
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "old").touch()
    with replace_on_success(folder, force=True):
        with pytest.raises(RunError, match="at work in it"), replace_on_success(folder, force=True):
            pass
        assert (tmp_path / ".a.replaced" / "old").is_file()
        (folder / "new").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (folder / "new").is_file()


def test_a_file_system_that_locks_nothing_is_no_obstacle(tmp_path, monkeypatch):
    import errno
    import fcntl

    def none(*_):
        raise OSError(errno.EBADF, "Bad file descriptor")  # of a folder on NFS

    monkeypatch.setattr(fcntl, "flock", none)
    with exclusive_lock(tmp_path), in_use(tmp_path):
        pass
