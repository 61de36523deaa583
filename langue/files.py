"""Write files and folders atomically, lock folders, and compute checksums."""

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

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of a full disk
# bytes; the longest published files, with added tokens, have some 20 million
MOST_JSON = 200_000_000


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; on success it replaces `path` in one step, on failure
    nothing remains.
    """
    refuse_existing(path, force=True)
    with disk_errors(path):
        path, temporary = _beside(path)
        temporary.touch(exist_ok=False)
        # the mode given by the umask; the writer may replace the temporary file by another
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
    """Yield a temporary folder to fill, which appears as `path` only when everything in it is on
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
    """Return the resolved path, so that a link stays a link, and an unused name in the same
    folder.
    """
    path = Path(os.path.realpath(path))  # a link to itself stays as it is
    path.parent.mkdir(parents=True, exist_ok=True)
    return path, path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def refuse_existing(file: str | Path | None, force: bool) -> None:
    """Raise RunError if the path of an output exists, unless it is a file and `force` is set."""
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
    """Rename a finished folder beside `path` to `path`, once everything in it is on disk."""
    with disk_errors(path):
        _complete(temporary, path)


def _complete(temporary: Path, path: Path) -> None:
    # the mode given by the umask; safetensors creates files that only their owner can read
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
    """Remove the content of a folder, but not the folder itself, which may be the target of a
    link.
    """
    with disk_errors(folder):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


@contextlib.contextmanager
def replace_on_success(folder: Path, force: bool) -> Iterator[None]:
    """Set aside a folder that `force` replaces, and put an empty one in its place; if the body
    fails, the old folder is restored. Raises RunError if another process uses it.
    """
    if not force or not folder.exists():
        yield
        return
    folder = folder.resolve()  # so that a link stays a link
    aside = folder.with_name(f".{folder.name}.replaced")
    with contextlib.ExitStack() as locks:
        # A lock belongs to the folder itself, and survives its renaming.
        for path in (folder, aside):
            if path.exists():
                locks.enter_context(_locked(path, fcntl.LOCK_EX, folder))
        with disk_errors(folder):
            # a previous attempt was killed: what it was to replace still exists
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


# Errors of file systems without locks; the last one is that of NFS for a folder, since a folder
# cannot be opened for writing.
UNLOCKABLE = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF)


@contextlib.contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Create the folder if it is missing, and lock it against all other processes that request a
    lock.

    Raises RunError if another process has a lock. If the body fails and leaves a newly created
    folder empty, the folder is removed again.
    """
    with disk_errors(folder):
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, fcntl.LOCK_EX, folder):
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # a folder is not empty, or no longer exists
                for path in made:
                    path.rmdir()
            raise


@contextlib.contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Lock the folder against processes that request an exclusive lock, but not against other
    readers.

    Raises RunError if a process has an exclusive lock.
    """
    with _locked(folder, fcntl.LOCK_SH, folder):
        yield


@contextlib.contextmanager
def _locked(path: Path, kind: int, where: Path) -> Iterator[None]:
    """Hold a lock on the folder at `path`; kind: as in `fcntl.flock`."""
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
        raise busy  # the folder was replaced between opening and locking


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn errors while `path` is written, such as a full disk, into a RunError."""
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
    except LangueError:  # it already says what is wrong, possibly with the same words
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
    """Return the JSON content of a file by this project or by a model's publisher; errors name the
    file and the line.
    """
    try:
        if path.stat().st_size > MOST_JSON:
            raise RunError(
                f"{path.stat().st_size:,} bytes of JSON are beyond any use", where=str(path)
            )
        return json.loads(path.read_text("utf-8-sig"))  # Windows writes a byte order mark
    except FileNotFoundError:
        raise RunError("no such file", where=str(path)) from None
    except OSError as error:
        raise unreadable(error, path, RunError) from None
    except json.JSONDecodeError as error:
        raise RunError(f"not JSON: {error.msg}", where=f"{path}, line {error.lineno}") from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise RunError(f"not JSON: {type(error).__name__}", where=str(path)) from None


def unreadable(error: OSError, where: str | Path, kind: type[LangueError]) -> LangueError:
    """Return the error for a file that exists but cannot be read; it does not mean that the content
    is bad.
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
    """Raise ModelError if a published config refers to custom code, which is never run.

    The effect of that code on the weights or the text is unknown, whatever else the config says.
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
