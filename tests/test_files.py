"""Files appear whole, where a link leads, with the rights that the umask gives; what is in the way
is one line."""

import os

import pytest

from langue.errors import RunError
from langue.files import (
    atomic_file,
    atomic_folder,
    clear,
    read_json,
    refuse_existing,
    replace_on_success,
    write_text,
)
from tests.tiny import tiny_bert


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_a_link_stays_one_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


def test_rights_are_what_the_umask_says(tmp_path, umask):
    with atomic_file(tmp_path / "a") as temporary:
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT, 0o600))  # as safetensors does
    with atomic_folder(tmp_path / "b") as folder:
        os.close(os.open(folder / "in b", os.O_CREAT, 0o600))
    weights = tiny_bert(tmp_path / "m") / "model.safetensors"
    paths = (tmp_path / "a", tmp_path / "b", tmp_path / "b" / "in b", weights)
    modes = {path.name: path.stat().st_mode & 0o777 for path in paths}
    assert modes == {"a": 0o640, "b": 0o750, "in b": 0o640, "model.safetensors": 0o640}


@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_file_is_never_replaced(tmp_path, force):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(RunError, match="is not a file that could be replaced"):
            refuse_existing(path, force)
        with pytest.raises(RunError, match="is not a file that could be replaced"):
            write_text(path, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_folder_is_replaced_through_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "old").touch()
    (tmp_path / "link").symlink_to("real")
    with replace_on_success(tmp_path / "link", force=True):
        (tmp_path / "link").mkdir(parents=True, exist_ok=True)
        (tmp_path / "link" / "new").touch()
    assert (tmp_path / "link").is_symlink() and sorted(os.listdir(tmp_path)) == ["link", "real"]
    assert os.listdir(tmp_path / "real") == ["new"]


def test_what_must_not_be_read_or_removed_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(RunError, match="cannot be read: Is a directory"):
        read_json(tmp_path)

    def locked(*_):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a").touch()
    for name in ("unlink", "rename"):
        monkeypatch.setattr(f"pathlib.Path.{name}", locked)
    with pytest.raises(RunError, match="cannot be written: Permission denied"):
        clear(tmp_path)
    with (
        pytest.raises(RunError, match="cannot be written: Permission denied"),
        replace_on_success(tmp_path, force=True),
    ):
        pass
