"""What arrives: a model in any layout that loads. What leaves: a folder in the Hub's layout."""

from pathlib import Path

from langue.verbs.model import load


def convert(model: str | Path, out: str | Path, *, revision: str | None = None) -> Path:
    """Write `model` (a Hub name, a folder, a run, a llama2.c file) to the folder `out`, as `transformers` reads it."""
    load(model, revision).save(out)
    return Path(out)
