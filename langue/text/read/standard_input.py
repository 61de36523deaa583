"""Reads lines from standard input as another program writes them, each as soon as it is
complete.
"""

import io
import select
import sys
from collections import deque
from collections.abc import Iterator
from typing import cast

from langue.text.read.lines import not_utf8

BLOCK = 65536  # maximum number of bytes read at a time
NAME = "standard input"


class StandardInput:
    """Yields (number from 1, line without its end) of standard input in UTF-8.

    A byte order mark is skipped. Raises DataError at a line that is not UTF-8.
    """

    def __init__(self, blank: bool = True) -> None:
        """blank: whether blank lines are included."""
        self._file = cast(io.BufferedReader, sys.stdin.buffer)
        self._blank = blank
        self._lines: deque[tuple[int, bytes]] = deque()
        self._open: list[bytes] = []  # the parts of a line that is not complete yet
        self._read = 0  # number of lines read
        self._is_ended = False
        try:
            self._descriptor: int | None = self._file.fileno()
        except io.UnsupportedOperation:  # in memory, so that reading never blocks
            self._descriptor = None

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return self

    def __next__(self) -> tuple[int, str]:
        while not self._lines and not self._is_ended:
            self._fill()
        if not self._lines:
            raise StopIteration
        number, line = self._lines[0]
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        # the line is kept, so that the next call raises the same error
        except UnicodeDecodeError as error:
            raise not_utf8(line, error.start, number, NAME) from None
        self._lines.popleft()
        return number, text

    def would_wait(self) -> bool:
        """Return whether reading the next line, or the end, would block."""
        while not self._lines and not self._is_ended:
            if self._descriptor is not None and not select.select([self._descriptor], [], [], 0)[0]:
                return True
            self._fill()
        return False

    def _fill(self) -> None:
        block = self._file.read1(BLOCK)
        if not block:
            self._is_ended = True
            if self._open:
                self._add(b"")
            return
        *whole, rest = block.split(b"\n")
        for part in whole:
            self._add(part)
        if rest:
            self._open.append(rest)

    def _add(self, end: bytes) -> None:
        """Add a line, given its last part."""
        line = b"".join([*self._open, end]).removesuffix(b"\r")
        self._open.clear()
        self._read += 1
        if self._blank or line.strip():
            self._lines.append((self._read, line))
