"""Batches: takes encoded examples; returns a `Batch`, one flat array of tokens with the offsets at
which sequences start.

T tokens, N sequences. There is no padding, and thus no mask: sequences are sorted by length, and
those of equal length form the groups that `model/attention.py` computes as dense products.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langue.data.pack import fill
from langue.model.attention import LengthBuckets, PairedLengthBuckets
from langue.text.tokenizers.unknown import Lost


@dataclass(frozen=True)
class Examples:
    """An encoded split: arrays over one flat array of tokens, in the order of the source's rows."""

    tokens: NDArray[np.int32]  # (S,) all tokens of all examples
    starts: NDArray[np.int64]  # (n + 1,) start of each example
    segments: NDArray[np.uint8] | None  # (S,) 0 for a text, 1 for its pair
    cut: NDArray[np.int32]  # (n,) tokens truncated from each
    targets: NDArray[Any] | None = None  # (n, ...) targets of the task's loss
    # (S,) label of each token; below 0: none
    labels: NDArray[np.int32] | None = None
    # what the tokenizer does not know of the texts; None: the examples were no texts
    lost: Lost | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    def with_targets(self, targets: NDArray[Any]) -> "Examples":
        return replace(self, targets=targets)


def examples_of(items: Sequence[Sequence[int]]) -> Examples:
    """Return sequences of token ids as examples."""
    starts = np.concatenate([[0], np.cumsum([len(item) for item in items])]).astype(np.int64)
    tokens = np.concatenate([np.asarray(item, np.int32) for item in items])
    return Examples(tokens, starts, None, np.zeros(len(items), np.int32))


@dataclass(frozen=True)
class Batch:
    tokens: Tensor  # (T,) int64
    positions: Tensor  # (T,) int64, 0 at each sequence's first token
    starts: Tensor  # (N + 1,) int64
    groups: LengthBuckets  # (offset, number of sequences, length), covering T
    segments: Tensor | None  # (T,) int64
    targets: Tensor | None  # (N, ...)
    rows: NDArray[np.int64]  # (N,) index of the example of each sequence
    # (M,) int64: labels of the tokens that carry loss
    labels: Tensor | None = None
    # (M,) int64: indices of these tokens in the batch; None: all tokens
    places: Tensor | None = None
    # False: only run to keep in step with other processes, see data/loader.py
    is_real: bool = True

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_tokens(self) -> int:
        return int(self.tokens.shape[0])

    @property
    def n_predicted(self) -> int:
        """Number of predicted tokens, if tokens are predicted."""
        return len(self.labels) if self.labels is not None and self.is_real else 0

    @property
    def label_sequences(self) -> Tensor:
        """The sequence of each of `labels`, (M,) int64."""
        indices = self.places
        if indices is None:
            indices = torch.arange(self.n_tokens, device=self.starts.device)
        following = torch.searchsorted(self.starts, indices, right=True)
        return following - 1

    @property
    def inputs(self) -> tuple[Tensor, Tensor, LengthBuckets, Tensor | None]:
        """The arguments of `Transformer.forward`."""
        return self.tokens, self.positions, self.groups, self.segments


def gather(
    examples: Examples, rows: NDArray[np.int64], device: torch.device | None = None
) -> Batch:
    """Gather the examples at `rows` into a batch, sorted by length (stably)."""
    lengths = examples.lengths[rows]
    order = np.argsort(lengths, kind="stable")
    rows = rows[order]
    lengths = lengths[order]
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    positions = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    # index in the split of each token of the batch
    source = positions + np.repeat(examples.starts[rows], lengths)

    tensor = partial(_tensor, device=device)
    segments = (
        None if examples.segments is None else tensor(examples.segments[source].astype(np.int64))
    )
    labels, places = _labelled(None if examples.labels is None else examples.labels[source])
    return Batch(
        tokens=tensor(examples.tokens[source].astype(np.int64)),
        positions=tensor(positions),
        starts=tensor(starts),
        groups=_groups(lengths),
        segments=segments,
        targets=None if examples.targets is None else tensor(examples.targets[rows]),
        rows=rows,
        labels=None if labels is None else tensor(labels),
        places=None if places is None else tensor(places),
    )


def parts_of(batch: Batch, budget: int) -> list[Batch]:
    """Split a batch into smaller ones in the same order, each of at most `budget` tokens or of a
    single sequence; labels are left out.
    """
    starts = batch.starts.cpu().numpy()
    lengths = np.diff(starts)
    parts = []
    for chosen in fill(np.arange(len(batch)), lengths, budget, 0):
        first = int(chosen[0])
        last = int(chosen[-1]) + 1
        tokens = slice(int(starts[first]), int(starts[last]))
        parts.append(
            replace(
                batch,
                tokens=batch.tokens[tokens],
                positions=batch.positions[tokens],
                starts=batch.starts[first : last + 1] - batch.starts[first],
                groups=_groups(lengths[first:last]),
                segments=None if batch.segments is None else batch.segments[tokens],
                targets=None if batch.targets is None else batch.targets[first:last],
                rows=batch.rows[first:last],
                labels=None,
                places=None,
            )
        )
    return parts


def _tensor(array: NDArray[Any], device: torch.device | None) -> Tensor:
    """Move an array to the device asynchronously; copies from pinned memory do not make a GPU's
    driver wait for earlier work.
    """
    made = torch.from_numpy(array)
    if device is None or device.type == "cpu":
        return made
    return (made.pin_memory() if device.type == "cuda" else made).to(device, non_blocking=True)


def _labelled(
    labels: NDArray[np.int32] | None,
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """Return the labels that carry loss, and their indices; None as indices if all do."""
    if labels is None:
        return None, None
    places = np.flatnonzero(labels >= 0)
    return labels[places].astype(np.int64), None if len(places) == len(labels) else places


def _groups(lengths: NDArray[np.int64]) -> LengthBuckets:
    """Return the runs of equal length in a sorted array of lengths."""
    values, counts = np.unique(lengths, return_counts=True)
    offsets = np.concatenate([[0], np.cumsum(values * counts)[:-1]])
    return [(int(o), int(n), int(t)) for o, n, t in zip(offsets, counts, values, strict=True)]


@dataclass(frozen=True)
class Pairs:
    """Sources and targets of an encoder-decoder, each flat and sorted by its own length."""

    source: Batch
    target: Batch  # sorted by length; equal lengths by the lengths of their sources
    order: Tensor  # (S,) index in the source of each token that the target's sequences attend to
    # runs in which both sides have equal lengths, with offsets into the target and into the source
    # as reordered by `order`
    groups: PairedLengthBuckets
    is_real: bool = True  # as in `Batch`

    def __len__(self) -> int:
        return len(self.target)

    @property
    def n_tokens(self) -> int:
        return self.source.n_tokens + self.target.n_tokens

    @property
    def n_predicted(self) -> int:
        """Number of predicted tokens."""
        return self.target.n_predicted if self.is_real else 0


def gather_pairs(
    sources: Examples,
    targets: Examples,
    rows: NDArray[np.int64],
    device: torch.device | None = None,
    source_of: NDArray[np.int64] | None = None,
) -> Pairs:
    """Gather the pairs at `rows` of two splits of equal length.

    source_of (n,): the source of each target, if several targets share a source, which is then
    encoded once.
    """
    of = np.arange(len(targets)) if source_of is None else source_of
    short = np.lexsort((sources.lengths[of[rows]], targets.lengths[rows]))
    rows = rows[short]
    source = gather(sources, rows if source_of is None else np.unique(of[rows]), device)
    target = gather(targets, rows, device)
    place = {int(row): index for index, row in enumerate(source.rows)}
    starts = np.concatenate([[0], np.cumsum(sources.lengths[source.rows])])
    pieces: list[NDArray[np.int64]] = []
    groups: PairedLengthBuckets = []
    read = memory = 0
    for row in target.rows:
        index = place[int(of[row])]
        pieces.append(np.arange(starts[index], starts[index + 1]))
        t = int(targets.lengths[row])
        s = len(pieces[-1])
        if groups and groups[-1][3:] == (t, s):
            offset, keys, n, _, _ = groups.pop()
            groups.append((offset, keys, n + 1, t, s))
        else:
            groups.append((read, memory, 1, t, s))
        read = read + t
        memory = memory + s
    return Pairs(source, target, _tensor(np.concatenate(pieces), device), groups)
