"""Progress bars and messages on stderr."""

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from html import escape
from importlib import import_module
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from langue.errors import LangueWarning
from langue.wording import span

_is_quiet: ContextVar[bool] = ContextVar("is_quiet", default=False)
NOTEBOOK_EVERY = 0.5  # seconds between two updates of a bar in a notebook


@contextmanager
def quiet(chosen: bool = True) -> Iterator[None]:
    """Suppress messages and bars, but not warnings and errors, if `chosen` is set."""
    before = _is_quiet.set(chosen)
    try:
        yield
    finally:
        _is_quiet.reset(before)


def say(text: str) -> None:
    """Print one line on stderr, verbatim."""
    if _is_quiet.get():
        return
    console = Console(file=sys.stderr, force_jupyter=False)
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def warn(message: str) -> None:
    """Issue a LangueWarning for the line of the user's program that called langue."""
    frame = sys._getframe(1)
    level = 2
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(
        ("langue", "contextlib")
    ):
        frame = frame.f_back
        level = level + 1
    warnings.warn(message, LangueWarning, stacklevel=level)


class Bar(Progress):
    """A progress bar on stderr or, in a notebook, as HTML in the output cell, without
    ipywidgets.
    """

    def __init__(
        self, *columns: Any, transient: bool = False, disable: bool = False, quiet: bool = False
    ) -> None:
        quiet = quiet or _is_quiet.get()
        self._notebook = None if disable or quiet else _notebook()
        self._shown = 0.0  # time of the last update of the notebook
        super().__init__(
            *columns,
            console=Console(file=sys.stderr, quiet=quiet, force_jupyter=False),
            transient=transient,
            disable=disable,
            auto_refresh=self._notebook is None,
        )
        self.is_transient = transient

    def start(self) -> None:
        if self._notebook is None:
            super().start()

    def update(self, *given: Any, **fields: Any) -> None:
        super().update(*given, **fields)
        if self._notebook is not None and time.monotonic() - self._shown >= NOTEBOOK_EVERY:
            self._show()

    def stop(self) -> None:
        if self._notebook is None:
            super().stop()
        else:
            self._show(gone=self.is_transient)

    def _show(self, gone: bool = False) -> None:
        assert self._notebook is not None
        self._shown = time.monotonic()
        self._notebook("" if gone else "".join(_as_html(task) for task in self.tasks))


def _as_html(task: Task) -> str:
    """Return a bar as HTML: name, completed and total work, and remaining time."""
    extent = "" if task.total is None else f' max="{task.total}" value="{task.completed}"'
    of = "" if task.total is None else f"/{task.total:,.0f}"
    left = task.time_remaining
    said = [
        f"{task.completed:,.0f}{of}",
        str(task.fields.get("facts", "")).rstrip(" ·"),
        "" if left is None or task.finished else f"{span(left)} left",
    ]
    words = " · ".join(escape(each) for each in said if each)
    name = escape(task.description)
    return f"<div><b>{name}</b> <progress{extent}></progress> {words}</div>"


def _notebook() -> Callable[[str], None] | None:
    """Return a function that shows HTML in a fixed place of the current notebook, or None outside
    of one.
    """
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if getattr(shell, "kernel", None) is None:
        return None
    shown: Any = import_module("IPython.display")
    handle: Any = None

    def show(content: str) -> None:
        nonlocal handle
        if handle is None:
            handle = shown.display(shown.HTML(content), display_id=True)
        else:
            handle.update(shown.HTML(content))

    return show


@contextmanager
def bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar, and yield a function to call with the amount of additional completed
    work.

    The bar disappears at the end. total: None if it is unknown.
    """
    of = "" if total is None else "/{task.total:,}"
    with Bar(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed:,}" + of),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        transient=True,
    ) as progress:
        row = progress.add_task(what, total=total)
        yield lambda done: progress.update(row, advance=done)
