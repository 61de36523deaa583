"""Samples of a language model: takes a model in training, and held-out documents; returns what the
model generates, for people to read.

A decoder continues the beginnings of documents, an encoder fills masks, and an encoder-decoder
restores removed spans.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from langue.data.corpus.stream import Chunks
from langue.generation.generate import generate
from langue.generation.sample import Sampling
from langue.hub.generation_config import GenerationConfig
from langue.runs.corpora import Pretraining
from langue.runtime import device

SAMPLES = 3
LENGTH = 60  # texts in a report, and tokens of each
SHOWN = {
    "decoder": "Beginnings of held-out documents, and how the model goes on.",
    "encoder": (
        "Beginnings of held-out documents, some tokens hidden, and what the model takes each of"
        " them for."
    ),
    "encoder-decoder": (
        "Beginnings of held-out documents, some spans taken out, and what the model puts there."
    ),
}
Samples = list[tuple[str, str]]  # input and output of each sample


@torch.no_grad()
def samples(prepared: Pretraining, network: Any, count: int = SAMPLES) -> Samples:
    """Return samples from evenly spaced documents, the same ones in each call; the model must be in
    eval mode.
    """
    there = np.flatnonzero(prepared.dev.lengths > 1)
    if not len(there):
        return []
    rows = there[np.linspace(0, len(there) - 1, min(count, len(there))).astype(np.int64)]
    room = max(2, min(prepared.config.longest, prepared.settings.data.seq_len) - 1)
    make = {"decoder": _continued, "encoder": _filled, "encoder-decoder": _restored}
    return make[prepared.objective.architecture](prepared, network, rows, room)


def _continued(prepared: Pretraining, network: Any, rows: NDArray[np.int64], room: int) -> Samples:
    objective = prepared.objective
    tokenizer = prepared.tokenizer
    dev = prepared.dev
    sizes = np.minimum(dev.lengths[rows], min(max(1, room // 4), 16))
    given = np.split(dev.tokens(rows, 0 * rows, sizes), np.cumsum(sizes)[:-1])
    begin: int = objective.begin  # type: ignore[attr-defined]
    sampling = Sampling(max_tokens=min(LENGTH, room - int(sizes.max())), temperature=0.8, seed=0)
    prompts = [[begin, *each.tolist()] for each in given]
    config = GenerationConfig(end=frozenset([objective.end]))  # type: ignore[attr-defined]
    made = generate(network, prompts, sampling, config)
    shown = []
    for beginning, written in zip(given, made, strict=True):
        shown.append(tokenizer.continuation(beginning.tolist(), written))
    return shown


def _beginnings(prepared: Pretraining, rows: NDArray[np.int64], room: int) -> Any:
    """Return the beginnings of documents as the objective corrupts them, limited to one chunk and a
    readable length.
    """
    most = min(LENGTH, room + 1 - prepared.objective.overhead.chunk)
    slices = Chunks(rows, 0 * rows, np.minimum(prepared.dev.lengths[rows], most), 0)
    return prepared.objective.make(prepared.dev, slices, device())


def _filled(prepared: Pretraining, network: Any, rows: NDArray[np.int64], room: int) -> Samples:
    objective = prepared.objective
    tokenizer = prepared.tokenizer
    batch = _beginnings(prepared, rows, room)
    best = torch.empty_like(batch.tokens)
    places = slice(None) if batch.places is None else batch.places
    best[places] = network.logits(objective.hidden(network, batch)).argmax(-1)
    made = []
    for begin, end in zip(batch.starts[:-1].tolist(), batch.starts[1:].tolist(), strict=True):
        tokens = batch.tokens[begin:end]
        hidden = tokens == objective.mask  # type: ignore[attr-defined]
        words = [tokenizer.decode([token]).strip() for token in best[begin:end][hidden].tolist()]
        made.append(
            (tokenizer.decode(tokens[1:-1].tolist(), skip_special=False), " → " + ", ".join(words))
        )
    return made


def _restored(prepared: Pretraining, network: Any, rows: NDArray[np.int64], room: int) -> Samples:
    objective = prepared.objective
    tokenizer = prepared.tokenizer
    source = _beginnings(prepared, rows, room).source
    given = [
        each.tolist() for each in torch.tensor_split(source.tokens.cpu(), source.starts[1:-1].cpu())
    ]
    config = GenerationConfig(
        end=frozenset([objective.end]),  # type: ignore[attr-defined]
        start=objective.start,  # type: ignore[attr-defined]
    )
    made = generate(network, given, Sampling(max_tokens=min(LENGTH, room)), config)
    pairs = zip(given, made, strict=True)
    return [
        (tokenizer.decode(a[:-1], skip_special=False), " → " + tokenizer.decode(b, False))
        for a, b in pairs
    ]
