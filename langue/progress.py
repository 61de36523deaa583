"""What arrives: the size of some work. What leaves: a progress bar on stderr while it is done."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from langue.errors import LangueWarning


def say(text: str) -> None:
    """One line on stderr, as it is."""
    Console(file=sys.stderr).print(text, markup=False, highlight=False, soft_wrap=True)


def warn(message: str) -> None:
    """A LangueWarning at the line of the user's program that called langue."""
    frame = sys._getframe(1)
    level = 2
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(
        ("langue", "contextlib")
    ):
        frame = frame.f_back
        level = level + 1
    warnings.warn(message, LangueWarning, stacklevel=level)


@contextmanager
def bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yields a function that is told how much more is done. The bar goes when the work is done.
    None: nobody knows.
    """
    of = "" if total is None else "/{task.total:,}"
    with Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed:,}" + of),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
    ) as progress:
        row = progress.add_task(what, total=total)
        yield lambda done: progress.update(row, advance=done)
