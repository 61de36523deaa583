"""Reference outputs: takes a model whose outputs are trusted; stores some of them in a file, and
compares another copy of the model with it.

For use where `transformers` is not installed or does not support the model. The file has the tokens
of awkward texts, and the model's outputs for three sequences: logits or, without a head, hidden
states, of the last token; or the whole outputs if the model has a task.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from langue.errors import ModelError
from langue.files import atomic_file
from langue.hub.weights import read_safetensors
from langue.runs.model import Model

GOLDEN = (
    "The quick brown fox jumps over the lazy dog.",
    "  leading and  double   spaces",
    "naïve café, Ångström, Straße, ǅ",
    "日本語のテキスト 中文文本 한국어",
    "👩‍👩‍👧 👍🏽 🇩🇪",
    "3.14159265358979323846 1,000,000 0x1F",
    "def f(x):\n\treturn x ** 2  # square",
    "tab\there \u200b zero width \x07 bell",
)
LENGTHS = (3, 17, 17)  # lengths of the sequences: a short one, and two of equal length
TOLERANCE = 1e-4  # relative to the norm; fp32 sums differ in order between machines


def probes(model: Model) -> list[list[int]]:
    """Return the token sequences on which models are compared. They contain no padding token, which
    some references do not treat as a token.
    """
    draw = np.random.default_rng(0)
    known = min(model.config.vocab_size, model.config.decoder_vocab_size or model.config.vocab_size)
    ids = [draw.integers(0, known, length) for length in LENGTHS]
    return [
        np.where(each == model.checkpoint.pad, (each + 1) % known, each).tolist() for each in ids
    ]


def answers(model: Model) -> list[NDArray[np.float32]]:
    """Return the model's outputs for the sequences, (t, V) or (t, D) each; (1, labels) for a task's
    head.
    """
    ids = probes(model)
    if model.task is not None:
        return list(model.logits(ids)[:, None])
    if model.language is None:
        return model.hidden(ids)
    both = model.config.architecture == "encoder-decoder"
    out: list[NDArray[np.float32]] = model.logits(ids, *([ids] if both else []))
    return out


def distance(ours: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return |ours - expected| / |expected|."""
    return float(np.linalg.norm(ours - expected) / np.linalg.norm(expected))


def tokens(model: Model) -> list[list[int]]:
    return [encoding.ids for encoding in model.tokenizer.encode_batch(GOLDEN)]


def kind(model: Model) -> str:
    """Return the kind of output that `answers` returns."""
    return "hidden" if model.language is None and model.task is None else "logits"


def store_reference(model: Model, file: Path) -> None:
    """Write this model's outputs to a safetensors file."""
    said = {
        f"tokens.{n}": torch.tensor(ids, dtype=torch.int64) for n, ids in enumerate(tokens(model))
    }
    last = {
        f"{kind(model)}.{n}": torch.from_numpy(each[-1].copy())
        for n, each in enumerate(answers(model))
    }
    with atomic_file(file) as temporary:
        save_file(said | last, str(temporary))


def compare_tokens(model: Model, file: Path) -> tuple[bool, str]:
    stored = _read(file, "tokens", len(GOLDEN))
    pairs = zip(GOLDEN, tokens(model), stored, strict=True)
    wrong = [text for text, ours, theirs in pairs if ours != theirs.tolist()]
    return (
        not wrong,
        f"{wrong[0]!r} differs" if wrong else f"{len(GOLDEN)} awkward texts have the same tokens",
    )


def compare_numbers(model: Model, file: Path) -> tuple[bool, str]:
    found = [each[-1] for each in answers(model)]
    stored = _read(file, kind(model), len(LENGTHS))
    if [each.shape for each in found] != [each.shape for each in stored]:
        return (
            False,
            (
                f"the reference has {len(stored[0])} {kind(model)} a token, and the model"
                f" {len(found[0])}"
            ),
        )
    worst = max(distance(ours, expected) for ours, expected in zip(found, stored, strict=True))
    return worst <= TOLERANCE, f"relative difference of {kind(model)} {worst:.1e}"


def refuse_missing(file: Path) -> None:
    """Raise ModelError if there is no reference."""
    if not file.is_file():
        raise ModelError(
            "no such reference", where=str(file), do="make one: langue verify MODEL --store FILE"
        )


def _read(file: Path, name: str, count: int) -> list[NDArray[Any]]:
    """Return the `count` rows of numbers that a reference stores under a name."""
    weights = read_safetensors(file)
    rows = [weights.get(f"{name}.{n}") for n in range(count)]
    if any(row is None or row.ndim != 1 for row in rows):
        raise ModelError(
            f"the file holds no {name} of a model, as a reference does", where=str(file)
        )
    return [row.numpy() for row in rows if row is not None]
