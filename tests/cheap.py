"""What makes small runs cheap, in the process of the tests and in those that it forks."""

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from matplotlib.figure import Figure

from langue.evaluation.curves import Curves

# A PNG file of one white pixel.
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTmF7gAAAABJRU5ErkJggg=="
)
_render = Figure.savefig
_panels = Curves.panels


def _save_pixel(figure: Figure, file: Any, **options: Any) -> None:
    if hasattr(file, "write"):
        file.write(PIXEL)
    else:
        Path(file).write_bytes(PIXEL)


def _two_pixels(curves: Curves) -> list[bytes]:
    return [PIXEL, PIXEL]


@contextmanager
def not_rendering() -> Iterator[None]:
    """Within, figures are composed but not rendered, which takes more than half of a small run; and
    the halves of curves.png are not composed once more for the report.
    """
    drawn = patch.object(Curves, "panels", _two_pixels)
    with patch.object(Figure, "savefig", _save_pixel), drawn:
        yield


@contextmanager
def rendering() -> Iterator[None]:
    """Within, figures are rendered."""
    drawn = patch.object(Curves, "panels", _panels)
    with patch.object(Figure, "savefig", _render), drawn:
        yield


@contextmanager
def not_waiting_for_the_disk() -> Iterator[None]:
    """Within, `os.fsync` returns at once; a bad descriptor still is an error.

    It protects against a loss of power, which no test simulates.
    """
    with patch.object(os, "fsync", os.fstat):
        yield
