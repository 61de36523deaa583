"""The training log: takes the results of each step; writes `log.jsonl`, one JSON object per line,
and shows a progress bar.
"""

import json
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from langue.files import disk_errors
from langue.progress import Bar
from langue.runtime import peak_memory, rank

if TYPE_CHECKING:
    from langue.train.tracker import Tracker


class Journal:
    """Writer of `log.jsonl`; on resume, lines after the checkpoint are removed, so that no step
    occurs twice.

    With several processes, only the first writes and shows anything.
    """

    def __init__(
        self, path: Path, total: int, begin: int = 0, size: int = 0, tracker: str = "none"
    ) -> None:
        speaks = rank() == 0
        self.tracker: Tracker | None = None
        if speaks and tracker != "none":
            from langue.train.tracker import make_tracker

            self.tracker = make_tracker(tracker, path.parent, begin)
        self.path = path if speaks else Path(os.devnull)
        self.file: TextIO = self.path.open("a" if size else "w", encoding="utf-8")
        if speaks:
            self.file.truncate(_whole_lines(path, size))
        self.bar = Bar(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=14),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            quiet=not speaks,
            disable=not speaks,
        )
        self.row = self.bar.add_task("training", total=total, completed=begin, facts="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self.bar.stop()
        with suppress(OSError):  # `write` has already reported what could not be written
            self.file.close()
        if self.tracker is not None:
            self.tracker.close()

    @property
    def size(self) -> int:
        """Number of bytes written and on disk."""
        self.file.flush()
        if self.path.is_file():  # the other processes write to os.devnull
            os.fsync(self.file.fileno())
        return self.path.stat().st_size

    def write(self, line: dict[str, Any]) -> None:
        # JSON has no NaN or infinity; the loss of a skipped step becomes null.
        line = {
            k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()
        }
        with disk_errors(self.path):
            self.file.write(json.dumps(line) + "\n")
            self.file.flush()
        if self.tracker is not None:
            self.tracker.log(line)

    def show(self, step: int, loss: float, speed: float, mfu: float | None = None) -> None:
        """Update the progress bar; mfu: fraction of the hardware's peak."""
        share = "" if mfu is None else f" · {mfu:.0%} of peak"
        facts = (
            f"loss {loss:.3f} · {speed:,.0f} tokens/s{share} · {peak_memory() / 2**30:.1f} GiB ·"
        )
        self.bar.update(self.row, completed=step, facts=facts)

    def say(self, text: str) -> None:
        self.bar.console.print(text)

    def quote(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Show the prompts and outputs of a model."""
        for given, made in pairs:
            line = Text.assemble(("  " + given, "dim"), made)
            self.bar.console.print(Text(" ⏎ ").join(line.split("\n")), soft_wrap=True)


def _whole_lines(path: Path, most: int) -> int:
    """Return the size of the complete lines within the first `most` bytes; after a power failure
    the file may be shorter, and end within a line.
    """
    with path.open("rb") as file:
        return file.read(most).rfind(b"\n") + 1


def read_log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]
