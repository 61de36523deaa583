"""Reads a plain or compressed file, possibly truncated or in another encoding, as lines of text
with their numbers.

Errors are one DataError with file, line and remedy. Lines end at line feeds only: the other line
separators of Unicode occur within people's texts.
"""

import codecs
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import zstandard

from langue.errors import DataError
from langue.files import unreadable
from langue.text.read.encodings import MARKS, Recoded, is_utf8, is_utf16, reading_note, remedy

BLOCK = 1 << 20  # number of bytes decoded at a time
Bad = Callable[[DataError], None]
COMPRESSIONS = (".gz", ".xz", ".zst")
_MAGIC = {  # first bytes -> format of the file, and the remedy
    b"\x1f\x8b": ("gzip-compressed", "let its name end in .gz"),
    b"\xfd7zXZ": ("xz-compressed", "let its name end in .xz"),
    b"\x28\xb5\x2f\xfd": ("zstd-compressed", "let its name end in .zst"),
    b"PK\x03\x04": (
        "a zip archive or a spreadsheet",
        "let the name of an Excel sheet end in .xlsx, or unpack an archive",
    ),
    b"PAR1": ("a Parquet file", "let its name end in .parquet"),
}


def compression(path: Path) -> str:
    suffix = path.suffix.lower()
    return suffix if suffix in COMPRESSIONS else ""


def lines(
    path: Path,
    where: str,
    bad: Bad | None = None,
    raw: Callable[[IO[bytes]], None] | None = None,
    encoding: str | None = None,
) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, line without its line feed) of a file; a byte order mark is skipped.

    bad, raw, encoding: as in `blocks`.
    """
    open_line: list[str] = []  # the parts of a line that continues in the next block
    begun = 1
    for number, block in blocks(path, where, bad, raw, encoding):
        if open_line and number != begun:  # the rest of the line was dropped
            yield begun, "".join(open_line)
            open_line = []
        if not open_line:
            begun = number
        *whole, rest = block.split("\n")
        if whole:
            whole[0] = "".join([*open_line, whole[0]])
            open_line = []
            yield from enumerate(whole, begun)
            begun += len(whole)
        if rest:
            open_line.append(rest)
    if open_line:
        yield begun, "".join(open_line)


def blocks(
    path: Path,
    where: str,
    bad: Bad | None = None,
    raw: Callable[[IO[bytes]], None] | None = None,
    encoding: str | None = None,
) -> Iterator[tuple[int, str]]:
    """Yield (number of its first line, decoded text) of about a megabyte at a time.

    bad: called with the error of each line that is not UTF-8, which is then dropped; None: the
    first error is raised. raw: as in `opened`. encoding: of a file that is not UTF-8 and has no
    byte order mark, which would determine the encoding.
    """
    number = 1
    before = 0  # number of bytes of the block's first line in earlier blocks
    rest = b""
    begin = True
    with opened(path, where, raw) as coded:
        stream = _as_utf8(coded, path, where, encoding)
        while block := stream.read(BLOCK):
            block = rest + block + stream.readline(BLOCK)
            if begin:
                block = beginning(block, where)
                begin = False
            # A line longer than a block may be split within a character, whose bytes are kept for
            # the next block.
            keep = len(block) if block.endswith(b"\n") else len(block) - _open_bytes(block[-4:])
            block, rest = block[:keep], block[keep:]
            yield from _decoded(block, number, before, where, bad)
            line_feeds = block.count(b"\n")
            before = len(block) - block.rfind(b"\n") - 1 if line_feeds else before + len(block)
            number += line_feeds
        if rest:
            yield from _decoded(rest, number, before, where, bad)


def _as_utf8(stream: IO[bytes], path: Path, where: str, encoding: str | None) -> IO[bytes]:
    """Return the stream, converted to UTF-8 if it is in another encoding."""
    first: bytes = stream.peek(4096)  # type: ignore[attr-defined]
    marked = next((name for mark, name in MARKS.items() if first.startswith(mark)), None)
    if marked is None and encoding is not None:
        with opened(path, where) as again:
            # a text in UTF-16 may also be valid UTF-8, with NUL characters
            if is_utf16(first) or not is_utf8(again):
                marked = encoding
    if marked is not None:
        return io.BufferedReader(Recoded(stream, marked, where), BLOCK)
    if is_utf16(first):
        raise DataError(
            "the content reads like UTF-16 without its mark", where=where, do=remedy(first, where)
        )
    return stream


def encoding_note(path: Path, where: str, encoding: str) -> list[str]:
    """Return a note on a file that is read in this encoding because it is not UTF-8; otherwise
    none.
    """
    with opened(path, where) as stream:
        first: bytes = stream.peek(4096)  # type: ignore[attr-defined]
        if any(first.startswith(mark) for mark in MARKS) or is_utf8(stream) and not is_utf16(first):
            return []
    with opened(path, where) as stream:
        return [reading_note(stream.read(BLOCK), encoding, where)]


def _open_bytes(tail: bytes) -> int:
    """Return how many bytes at the end belong to an incomplete UTF-8 character."""
    for back in range(1, min(4, len(tail)) + 1):
        byte = tail[-back]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if back < needed else 0
        if byte < 0x80:
            return 0
    return 0


def _decoded(
    block: bytes, number: int, before: int, where: str, bad: Bad | None
) -> Iterator[tuple[int, str]]:
    try:
        yield number, block.decode("utf-8")
    except UnicodeDecodeError as error:
        if bad is None:
            raise not_utf8(block, error.start, number, where, before) from None
    else:
        return
    for line, part in enumerate(_kept(block), number):
        try:
            yield line, part.decode("utf-8")
        except UnicodeDecodeError as error:
            bad(not_utf8(part, error.start, line, where, before if line == number else 0))


def _kept(block: bytes) -> list[bytes]:
    """Return the lines with their line feeds; bytes.splitlines would also split at carriage
    returns.
    """
    parts = block.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def not_utf8(block: bytes, at: int, line: int, where: str, before: int = 0) -> DataError:
    """Return the error for the byte `at` of a block that begins in line `line`, after `before`
    bytes of that line.
    """
    line_feeds = block.count(b"\n", 0, at)
    begin = block.rfind(b"\n", 0, at) + 1
    column = at - begin + 1 + (0 if line_feeds else before)
    return DataError(
        f"byte {column} of the line is not UTF-8",
        where=f"{where}, line {line + line_feeds}",
        do=remedy(block if b"\x00" in block else block[begin:], where),
    )


def beginning(raw: bytes, where: str) -> bytes:
    """Return the first bytes of a file without their byte order mark; raise DataError if they are
    of another format.
    """
    for magic, (what, do) in _MAGIC.items():
        if raw.startswith(magic):
            raise DataError(f"the content is {what}", where=where, do=do)
    return raw.removeprefix(codecs.BOM_UTF8)


@contextlib.contextmanager
def opened(
    path: Path, where: str, raw: Callable[[IO[bytes]], None] | None = None
) -> Iterator[IO[bytes]]:
    """Open a file as a stream of decompressed bytes; errors while reading become a DataError.

    raw: called with the underlying file, whose position shows the progress.
    """
    kind = compression(path)
    try:
        with path.open("rb") as file:
            if raw is not None:
                raw(file)
            if kind == ".gz":
                yield io.BufferedReader(gzip.GzipFile(fileobj=file), 1 << 20)
            elif kind == ".xz":
                yield io.BufferedReader(lzma.LZMAFile(file), 1 << 20)  # noqa: SIM115  (closing `file` is enough)
            elif kind == ".zst":
                yield io.BufferedReader(_Zstd(file), 1 << 20)
            else:
                yield file
    except EOFError:
        raise DataError(
            f"the {kind} file ends before its data does",
            where=where,
            do="it was cut short: fetch or write it again",
        ) from None
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error, zstandard.ZstdError) as error:
        raise DataError(
            f"not a readable {kind} file: {error}",
            where=where,
            do="fetch or write it again, or correct its name",
        ) from None
    except OSError as error:
        raise unreadable(error, where, DataError) from None


class _Zstd(io.RawIOBase):
    """The decompressed bytes of a zstd stream.

    The reader of the package itself takes a truncated stream for a complete one.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.ready = b""
        self.waiting = b""
        self.frame = zstandard.ZstdDecompressor().decompressobj()
        self.begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self.ready:
            data = self.waiting or self.stream.read(1 << 16)
            self.waiting = b""
            if not data:
                if self.begun and not self.frame.eof:
                    raise EOFError
                return 0
            if self.frame.eof:
                self.frame = zstandard.ZstdDecompressor().decompressobj()
            self.begun = True
            self.ready = self.frame.decompress(data)
            self.waiting = self.frame.unused_data if self.frame.eof else b""
        size = min(len(buffer), len(self.ready))
        buffer[:size] = self.ready[:size]
        self.ready = self.ready[size:]
        return size
