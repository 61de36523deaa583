"""How many of our own files a reader crosses from a command to the first loss, and within one step.

A file is crossed when a function of it runs; importing it alone does not count, and is counted
apart.
"""

import inspect
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import langue

ROOT = Path(langue.__file__).parent
GOALS = {"command to first loss": 30, "one optimiser step": 10, "modules imported": 80}


class Walk:
    """Records which files of the package run functions, in the order of their first call."""

    def __init__(self) -> None:
        self.files: dict[str, None] = {}

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
            return  # the body of a module or class, run by importing it
        file = frame.f_code.co_filename
        if file.startswith(str(ROOT)):
            self.files.setdefault(str(Path(file).relative_to(ROOT)), None)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        before = sys.getprofile()
        sys.setprofile(self._note)
        threading.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(before)
            threading.setprofile(before)


class FirstLoss(Exception):
    """Raised where the walk ends."""


def walk_to_loss(words: list[str]) -> tuple[list[str], list[str]]:
    """Run `langue` with these words up to its second step.

    Returns the files from the command to the first loss, and those of the second step.
    """
    from langue.train.trainer import Trainer

    way, step = Walk(), Walk()
    original = Trainer._step
    calls = 0

    def stepped(self: Trainer, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            return original(self, *arguments)
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
        with step.recorded():
            original(self, *arguments)
        raise FirstLoss

    Trainer._step = stepped  # type: ignore[method-assign]
    try:
        with way.recorded():
            run_command(words)
    except FirstLoss:
        pass
    finally:
        Trainer._step = original  # type: ignore[method-assign]
    return list(way.files), list(step.files)


def run_command(words: list[str]) -> None:
    """The command line, without what turns an exception into an exit code."""
    import typer

    from langue.cli import app

    typer.main.get_command(app)(words, standalone_mode=False)


def modules_imported(verb: str) -> int:
    """How many of our modules a verb's own import brings."""
    code = (
        f"import sys, langue.verbs.{verb};"
        " print(sum(n.split('.')[0] == 'langue' for n in sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(found.stdout)


def sample_data(folder: Path) -> tuple[Path, Path]:
    """A labelled file and a text of a few lines."""
    rows = [
        f'{{"text": "a {word} film number {i}", "label": "{word}"}}'
        for i in range(40)
        for word in ("good", "bad")
    ]
    labelled = folder / "rows.jsonl"
    labelled.write_text("\n".join(rows), "utf-8")
    text = folder / "text.txt"
    text.write_text(
        "\n\n".join(f"It was a long day, and number {i} of many." for i in range(400)), "utf-8"
    )
    return labelled, text


def run(model: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        labelled, text = sample_data(folder)
        commands = {
            "finetune": [
                "finetune",
                "--model",
                model,
                "--data",
                str(labelled),
                "--out",
                str(folder / "a"),
            ],
            "pretrain": [
                "pretrain",
                "--data",
                str(text),
                "--out",
                str(folder / "b"),
                "model.size=1M",
                "train.max_steps=3",
                "train.batch_tokens=512",
            ],
        }
        print(f"Python {sysconfig.get_python_version()}, files of langue/")
        for verb, words in commands.items():
            way, step = walk_to_loss(words)
            imported = modules_imported(verb)
            print(f"\n{verb}: {imported} modules imported (goal {GOALS['modules imported']})")
            print(
                f"command to first loss: {len(way)} files (goal {GOALS['command to first loss']})"
            )
            print("  " + "\n  ".join(way))
            print(f"one optimiser step: {len(step)} files (goal {GOALS['one optimiser step']})")
            print("  " + "\n  ".join(step))
