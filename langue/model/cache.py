"""What arrives: the keys and values of new tokens. What leaves: those of all tokens so far, so that
none is computed twice.

They stand in pages of `PAGE` tokens (Kwon et al. 2023, arXiv:2309.06180), which belong to no
sequence: a sequence has a table of the numbers of its pages, sequences with the same beginning
share pages, and a page that is not needed any more is another's. A page holds one head's tokens
side by side, so that a head reads them in one run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langue.errors import ModelError
from langue.model.config import ModelConfig
from langue.model.native import Native, native

PAGE = 16  # tokens


def pages_for(tokens: int) -> int:
    """How many pages hold so many tokens of one sequence."""
    return -(-tokens // PAGE)


def kernels_for(x: Tensor) -> Native | None:
    """The native kernels, where they read this tensor."""
    usable = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled()
    return native() if usable else None


def first_page_in_window(position: int, window: int) -> int:
    """The first page that a token at this position, or a later one, can see; window: as in
    `AttentionConfig`, 0 for everything.
    """
    return max(0, position - window + 1) // PAGE if window else 0


class Pages:
    """Keys and values of every layer, (L, 2, P, G, PAGE, K); it knows pages and no sequences."""

    def __init__(
        self, config: ModelConfig, count: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        """config: of a decoder; count: pages, P. Memory is taken when a page is first written."""
        shape = (config.n_layers, 2, count, config.n_kv_heads, PAGE, config.head_dim)
        self.data = torch.empty(shape, dtype=dtype, device=device)

    @staticmethod
    def bytes_each(config: ModelConfig, dtype: torch.dtype) -> int:
        """What one page takes in all layers."""
        return 2 * config.n_layers * config.n_kv_heads * PAGE * config.head_dim * dtype.itemsize

    def write(self, layer: int, k: Tensor, v: Tensor, slots: Tensor) -> None:
        """k, v (T, G, K) of new tokens; slots (T,): page * PAGE + place in the page."""
        kernels = kernels_for(self.data)
        if kernels is not None and k.dtype == torch.float32:
            kernels.write(k.contiguous(), v.contiguous(), self.data[layer], slots)
            return
        pages = torch.div(slots, PAGE, rounding_mode="floor")
        places = slots % PAGE
        self.data[layer, 0][pages, :, places] = k.to(self.data.dtype)
        self.data[layer, 1][pages, :, places] = v.to(self.data.dtype)

    def read(self, layer: int, tables: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Keys and values of n sequences of one length; tables (n, P). Each (n, length, G, K)."""
        found = self.data[layer][:, tables]  # (2, n, P, G, PAGE, K)
        _, n, pages, heads, page, width = found.shape
        joined = found.permute(0, 1, 3, 2, 4, 5).reshape(2, n, heads, pages * page, width)
        k, v = joined[:, :, :, :length].transpose(2, 3)  # (n, length, G, K) each
        return k, v

    def copy(self, source: int, target: int) -> None:
        """Write one page over another, in all layers."""
        self.data[:, :, target] = self.data[:, :, source]


@dataclass(frozen=True)
class Span:
    """One sequence's part of a step: some of its tokens, one after another, and what they see."""

    offset: int  # where its tokens begin among those of the step
    new: int  # how many they are
    # How many keys there are: of self-attention the last `new` of them are these tokens' own.
    keys: int
    table: NDArray[np.int32]  # (at least `pages_for(keys)`,) the pages that hold them


class PagedKeys:
    """Where the keys of a step's tokens are, sequence by sequence."""

    def __init__(self, pages: Pages, spans: Sequence[Span], slots: Tensor | None = None) -> None:
        """spans: in the order of the step's tokens, which they cover; slots (T,): where the tokens'
        own keys go, None where all keys are there.
        """
        self.pages = pages
        self.spans = spans
        self.slots = slots
        self.longer = [span for span in spans if span.new > 1]
        singles = [span for span in spans if span.new == 1]
        # of spans of one token, by which most steps are made up
        self.n_single = len(singles)
        self.single_rows = torch.tensor([span.offset for span in singles])
        self.lengths = torch.tensor([span.keys for span in singles], dtype=torch.int32)
        most = max((pages_for(span.keys) for span in singles), default=0)
        tables = np.zeros((len(singles), most), np.int32)
        for row, span in enumerate(singles):
            count = pages_for(span.keys)
            tables[row, :count] = span.table[:count]
        self.tables = torch.from_numpy(tables)  # (n_single, most pages)

    @staticmethod
    def of_spans(pages: Pages, spans: Sequence[Span]) -> "PagedKeys":
        """With slots for the spans' own tokens."""
        slots = [slots_of(span.table, span.keys - span.new, span.keys) for span in spans]
        return PagedKeys(
            pages, spans, torch.from_numpy(np.concatenate(slots)).to(pages.data.device)
        )


def slots_of(table: NDArray[np.int32], begin: int, end: int) -> NDArray[np.int64]:
    """Where the tokens at positions begin .. end of a sequence go: page * PAGE + place."""
    positions = np.arange(begin, end)
    pages = table[positions // PAGE].astype(np.int64)
    return pages * PAGE + positions % PAGE


def check_pageable(config: ModelConfig) -> None:
    """ModelError for an encoder-decoder whose two attentions have heads of different numbers, whose
    keys have no place in one page.
    """
    if config.decoder_layers and config.decoder().n_kv_heads != config.decoder().n_heads:
        raise ModelError(
            "the decoder shares key/value heads in self-attention and not in cross-attention",
            do="this cannot be generated from here",
        )
