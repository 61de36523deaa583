"""HTML output for notebooks: takes what is printed to a terminal; returns the same as HTML, with
markup in texts and labels escaped.
"""

import base64
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

WIDTH = 100  # characters per line
BLOCK = '<pre style="white-space: pre; overflow-x: auto; line-height: normal">{code}</pre>'


def as_text(show: Callable[[Console], None]) -> str:
    """What `show` prints on a console, without colours."""
    console = Console(file=StringIO(), width=WIDTH, color_system=None, force_jupyter=False)
    with console.capture() as captured:
        show(console)
    return captured.get().rstrip()


def as_html(show: Callable[[Console], None]) -> str:
    """Return what `show` prints to a console as HTML, with its colours, and its markup escaped."""
    console = Console(
        file=StringIO(), record=True, width=WIDTH, force_terminal=True, force_jupyter=False
    )
    show(console)
    return console.export_html(inline_styles=True, code_format=BLOCK)


def image_html(file: Path) -> str:
    """Return a PNG file as an inline image; "" if it does not exist."""
    if not file.is_file():
        return ""
    encoded = base64.b64encode(file.read_bytes()).decode()
    return f'<img style="max-width: 100%" alt="{file.stem}" src="data:image/png;base64,{encoded}">'


class Result(dict[str, Any]):
    """The dict that a verb returns, which Python and notebooks display as a terminal does."""

    def __init__(
        self, content: Mapping[str, Any], show: Callable[[Mapping[str, Any], Console], None]
    ) -> None:
        super().__init__(content)
        self._show = show

    def print(self, console: Console) -> None:
        """Print it for people."""
        self._show(self, console)

    def __repr__(self) -> str:
        return as_text(self.print)

    def _repr_html_(self) -> str:
        return as_html(self.print)
