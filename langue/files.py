"""What arrives: bytes to keep.
What leaves: files that are complete or absent, never half; and their checksums.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langue.errors import LangueError, ModelError, RunError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a disk says that takes no more
MOST_JSON = 200_000_000  # bytes; the longest published, of added tokens, have some twenty million


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Write to the yielded temporary path; on success it replaces `path` in one step, on failure
    nothing is left.
    """
    refuse_existing(path, force=True)
    with disk_errors(path):
        path, temporary = _beside(path)
        temporary.touch(exist_ok=False)
        # as the umask has it; what writes to it may put another file in its place
        mode = temporary.stat().st_mode
    try:
        with disk_errors(path):
            yield temporary
            _sync(temporary)
            temporary.chmod(mode)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """As `atomic_file`, for a folder: it appears under its name only when everything in it is on
    disk.
    """
    with disk_errors(path):
        path, temporary = _beside(path)
        temporary.mkdir()
    try:
        with disk_errors(path):
            yield temporary
            _complete(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path) -> tuple[Path, Path]:
    """Where `path` is, for a link is followed and stays one; and a name in the same folder that
    nothing has.
    """
    path = Path(os.path.realpath(path))  # of a link that leads to itself, itself
    path.parent.mkdir(parents=True, exist_ok=True)
    return path, path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def refuse_existing(file: str | Path | None, force: bool) -> None:
    """RunError where there is something already where a file is to be written, but for a file that
    `force` replaces.
    """
    if file is None:
        return
    with disk_errors(path := Path(file)):
        if path.exists() and not path.is_file():  # /dev/stdout, a folder
            raise RunError(
                "exists and is not a file that could be replaced",
                where=str(path),
                do="choose another",
            )
        if path.exists() and not force:
            raise RunError(
                "the file exists", where=str(path), do="choose another, or replace it with --force"
            )


def complete_folder(temporary: Path, path: Path) -> None:
    """Give a folder, written by whomever beside `path`, that name once everything in it is on
    disk.
    """
    with disk_errors(path):
        _complete(temporary, path)


def _complete(temporary: Path, path: Path) -> None:
    # as the umask has it; safetensors gives its files to their owner alone
    mode = temporary.stat().st_mode & 0o666
    for file in temporary.rglob("*"):
        if file.is_file():
            file.chmod(mode)
            _sync(file)
    if path.exists():
        shutil.rmtree(path)
    temporary.replace(path)
    _sync(path.parent)


def clear(folder: Path) -> None:
    """Take out what is in a folder, which stays, as a link to it does."""
    with disk_errors(folder):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


@contextlib.contextmanager
def replace_on_success(folder: Path, force: bool) -> Iterator[None]:
    """Within, the folder that `force` replaces stands aside, an empty one in its place; where what
    is done within fails, it comes back. RunError where another process is at work in it.
    """
    if not force or not folder.exists():
        yield
        return
    folder = folder.resolve()  # a link stays one
    aside = folder.with_name(f".{folder.name}.replaced")
    with contextlib.ExitStack() as locks:
        # A lock stays with what it was put on, whatever that is called later.
        for path in (folder, aside):
            if path.exists():
                locks.enter_context(_locked(path, fcntl.LOCK_EX, folder))
        with disk_errors(folder):
            # of an attempt that was killed: what it was to replace is there still
            if aside.exists():
                shutil.rmtree(folder)
            else:
                folder.rename(aside)
            folder.mkdir()
        try:
            yield
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
            raise
        shutil.rmtree(aside)


# What file systems say that lock nothing; NFS the last, of a folder, which cannot be opened to be
# written.
UNLOCKABLE = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF)


@contextlib.contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Make the folder where it is missing, and keep every other process that asks out of it.
    RunError where one is in it. Where what is done within fails and leaves nothing in a folder that
    was made, that goes again.
    """
    with disk_errors(folder):
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, fcntl.LOCK_EX, folder):
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # one is not empty, or gone
                for path in made:
                    path.rmdir()
            raise


@contextlib.contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep processes out that want to be alone in the folder, and none that reads it too. RunError
    where one is.
    """
    with _locked(folder, fcntl.LOCK_SH, folder):
        yield


@contextlib.contextmanager
def _locked(path: Path, kind: int, where: Path) -> Iterator[None]:
    """A lock on the folder at `path`, of a kind of `fcntl.flock`."""
    with disk_errors(where):
        handle = os.open(path, os.O_RDONLY)
    try:
        with disk_errors(where):
            _lock(handle, path, kind, where)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, path: Path, kind: int, where: Path) -> None:
    busy = RunError(
        "another process is at work in it",
        where=str(where),
        do="wait for it, end it, or choose another folder",
    )
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise busy from None
    except OSError as error:
        if error.errno not in UNLOCKABLE:
            raise
    if not path.exists() or not os.path.samestat(os.fstat(handle), path.stat()):
        raise busy  # it was replaced between the opening and the lock


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What goes wrong while `path` is written, a full disk first of all, becomes a RunError."""
    try:
        yield
    except OSError as error:
        full = error.errno in FULL
        raise RunError(
            f"cannot be written: {error.strerror or error}",
            where=str(path),
            do=(
                f"{'free space or ' if full else ''}choose another folder; what was complete before"
                " is kept"
            ),
        ) from error
    except LangueError:  # which says what is wrong already, perhaps in the same words
        raise
    except Exception as error:
        # safetensors reports a full disk as its own error type, with the system's words inside.
        if "os error" in str(error).lower() or "no space" in str(error).lower():
            raise RunError(
                f"cannot be written: {error}", where=str(path), do="free space or choose another"
            ) from error
        raise


def write_json(path: Path, content: Any) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(
            json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n", "utf-8"
        )


def write_text(path: Path, content: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(content, "utf-8")


def read_json(path: Path) -> Any:
    """JSON of a file that this project or a model publisher wrote; errors name the file and the
    line.
    """
    try:
        if path.stat().st_size > MOST_JSON:
            raise RunError(
                f"{path.stat().st_size:,} bytes of JSON are beyond any use", where=str(path)
            )
        return json.loads(path.read_text("utf-8-sig"))  # Windows puts a mark first
    except FileNotFoundError:
        raise RunError("no such file", where=str(path)) from None
    except OSError as error:
        raise unreadable(error, path, RunError) from None
    except json.JSONDecodeError as error:
        raise RunError(f"not JSON: {error.msg}", where=f"{path}, line {error.lineno}") from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise RunError(f"not JSON: {type(error).__name__}", where=str(path)) from None


def unreadable(error: OSError, where: str | Path, kind: type[LangueError]) -> LangueError:
    """The error of what is there and may not or cannot be read, which says nothing of what is in
    it.
    """
    return kind(
        f"cannot be read: {error.strerror or error}",
        where=str(where),
        do="check its permissions and the disk",
    )


def sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def refuse_code(config: dict[str, Any], file: Path) -> None:
    """ModelError where a published config names code of its own, which is never run: what that
    would make of the weights or the text is then not known, whatever else the config says.
    """
    named = [key for key in ("auto_map", "custom_pipelines") if config.get(key)]
    if named:
        raise ModelError(
            f"{named[0]} names code that comes with the model, which langue never runs",
            where=str(file),
            do=(
                f"where the other entries say all that the model is, take {named[0]} out of the"
                " file; the code may compute something else, as attention both ways in a decoder,"
                " and then results differ from those published: compare a few"
            ),
        )
