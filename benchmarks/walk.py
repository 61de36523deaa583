"""Count how many of our own files a reader crosses from a command to the first loss, and within one
step.

A file is crossed when one of its functions runs; files that are only imported are counted
separately.
"""

import inspect
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import langue

ROOT = Path(langue.__file__).parent
GOALS = {"command to first loss": 30, "one optimiser step": 10, "modules imported": 80}


class Walk:
    """Records the files of the package whose functions run, in the order of their first call."""

    def __init__(self) -> None:
        self.files: dict[str, None] = {}

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if event != "call" or not file.startswith(str(ROOT)):
            return
        name = str(Path(file).relative_to(ROOT))
        if name not in self.files and not importing(frame):
            self.files[name] = None

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


def importing(frame: FrameType | None) -> bool:
    """Return whether a frame runs because one of our modules is being imported: it is the body of a
    module or class, or was called by one.
    """
    while frame is not None:
        inside = frame.f_code.co_filename.startswith(str(ROOT))
        if inside and not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
            return True
        frame = frame.f_back
    return False


@dataclass(frozen=True)
class Counts:
    """The walk of one command."""

    way: list[str]  # files from the command to the first loss
    step: list[str]  # files of one optimiser step
    imported: int  # number of modules that the verb's import loads

    def numbers(self) -> dict[str, int]:
        return dict(zip(GOALS, (len(self.way), len(self.step), self.imported), strict=True))


class FirstLoss(Exception):
    """Raised to end the walk."""


def walk_to_loss(words: list[str]) -> tuple[list[str], list[str]]:
    """Run `langue` with these words up to its second step.

    Returns the files from the command to the first loss, and those of the second step.
    """
    from langue.train.trainer import Trainer

    way = Walk()
    step = Walk()
    original = Trainer._step
    calls = 0

    def stepped(self: Trainer, batches: list[Any]) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls == 1:
            line = original(self, batches)
            # what follows the first loss does not belong to the way to it
            sys.setprofile(None)
            threading.setprofile(None)
            return line
        with step.recorded():
            original(self, batches)
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
    """Run the command line without its conversion of exceptions to exit codes."""
    import typer

    from langue.cli import app

    typer.main.get_command(app)(words, standalone_mode=False)


def modules_imported(module: str, words: Sequence[str] = ()) -> int:
    """Return how many of our modules the import of one loads; words: also run this command line."""
    code = f"import sys, langue.{module}\n"
    if words:
        code += f"langue.{module}.run({list(words)!r})\n"
    code += "print(sum(name.split('.')[0] == 'langue' for name in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(found.stdout.splitlines()[-1])


def sample_data(folder: Path) -> tuple[Path, Path]:
    """Write a labelled file and a text, of a few lines each."""
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


def measure(model: str, verbs: Sequence[str] = ("finetune", "pretrain")) -> dict[str, Counts]:
    """Return the walk of each verb, on a labelled file or a text of a few lines."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        labelled, text = sample_data(folder)
        source = {
            "finetune": ["--model", model, "--data", str(labelled)],
            "pretrain": ["--data", str(text), "model.size=1M", "train.batch_tokens=512"],
        }
        found = {}
        for verb in verbs:
            words = [verb, *source[verb], "--out", str(folder / verb), "train.max_steps=3"]
            way, step = walk_to_loss(words)
            found[verb] = Counts(way, step, modules_imported(f"verbs.{verb}"))
        return found


def report(found: dict[str, Counts]) -> str:
    """Return the page docs/walk.md."""
    lines = ["# The walk", ""]
    lines += [
        "How many of our own files a reader crosses: those of which a function runs, in the order",
        "of their first call. Made by `python -m benchmarks walk`, which traces a run of",
        "MiniLM-L6 on a labelled file, and of a new model on a text.",
        "",
    ]
    lines += ["| what | " + " | ".join(f"`langue {verb}`" for verb in found) + " | goal |"]
    lines += ["|---|" + "---|" * (len(found) + 1)]
    for name, goal in GOALS.items():
        numbers = " | ".join(str(counts.numbers()[name]) for counts in found.values())
        lines += [f"| {name} | {numbers} | {goal} |"]
    for verb, counts in found.items():
        for title, files in (("command to first loss", counts.way), ("one step", counts.step)):
            lines += ["", f"## {verb}: {title}", ""]
            lines += [f"{number}. {file}" for number, file in enumerate(files, 1)]
    started = ", ".join(f"{n} by `langue {word}`" for word, n in command_imports().items())
    lines += ["", f"Modules of ours imported: {started}.", ""]
    return "\n".join(lines)


def command_imports() -> dict[str, int]:
    """Return how many of our modules are imported by commands that do nothing."""
    return {word: modules_imported("cli", [word]) for word in ("--version", "--help")}


def run(model: str) -> None:
    page = report(measure(model))
    Path("docs/walk.md").write_text(page, "utf-8")
    print(page)
