"""The paged KV cache: takes the keys and values of new tokens; provides those of all tokens so far,
so that none is computed twice.

Keys and values are in pages of `PAGE` tokens (Kwon et al. 2023, arXiv:2309.06180), which are
independent of sequences: each sequence has a page table, sequences with a common prefix share
pages, and free pages are reused. A page stores the tokens of each head contiguously, so that a head
reads them in one run.
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
    """Return the number of pages for the tokens of one sequence."""
    return -(-tokens // PAGE)


def kernels_for(x: Tensor) -> Native | None:
    """Return the native kernels if they support this tensor."""
    usable = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled()
    return native() if usable else None


def first_page_in_window(position: int, window: int) -> int:
    """Return the first page that a token at this position, or a later one, can attend to; window:
    as in `AttentionConfig`, 0 for full attention.
    """
    return max(0, position - window + 1) // PAGE if window else 0


class Pages:
    """Keys and values of all layers, (L, 2, P, G, PAGE, K); independent of sequences."""

    def __init__(
        self, config: ModelConfig, count: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        """config: of a decoder. count: number of pages, P. The operating system allocates memory
        when a page is first written.
        """
        shape = (config.n_layers, 2, count, config.n_kv_heads, PAGE, config.head_dim)
        self.data = torch.empty(shape, dtype=dtype, device=device)

    @staticmethod
    def bytes_each(config: ModelConfig, dtype: torch.dtype) -> int:
        """Return the bytes of one page over all layers."""
        return 2 * config.n_layers * config.n_kv_heads * PAGE * config.head_dim * dtype.itemsize

    def write(self, layer: int, k: Tensor, v: Tensor, slots: Tensor) -> None:
        """Write k, v (T, G, K) of new tokens; slots (T,): page * PAGE + position in the page."""
        kernels = kernels_for(self.data)
        if kernels is not None and k.dtype == torch.float32:
            kernels.write(k.contiguous(), v.contiguous(), self.data[layer], slots)
            return
        pages = torch.div(slots, PAGE, rounding_mode="floor")
        places = slots % PAGE
        self.data[layer, 0][pages, :, places] = k.to(self.data.dtype)
        self.data[layer, 1][pages, :, places] = v.to(self.data.dtype)

    def read(self, layer: int, tables: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Return keys and values of n sequences of equal length, (n, length, G, K) each; tables (n,
        P).
        """
        found = self.data[layer][:, tables]  # (2, n, P, G, PAGE, K)
        _, n, pages, heads, page, width = found.shape
        joined = found.permute(0, 1, 3, 2, 4, 5).reshape(2, n, heads, pages * page, width)
        k, v = joined[:, :, :, :length].transpose(2, 3)  # (n, length, G, K) each
        return k, v

    def copy(self, source: int, target: int) -> None:
        """Copy a page to another one, in all layers."""
        self.data[:, :, target] = self.data[:, :, source]


@dataclass(frozen=True)
class Span:
    """One sequence's part of a step: consecutive tokens, and the keys that they attend to."""

    offset: int  # index of its first token among those of the step
    new: int  # number of its tokens
    # Number of keys; in self-attention the last `new` of them are those of the tokens themselves.
    keys: int
    table: NDArray[np.int32]  # (at least `pages_for(keys)`,) the pages that hold the keys


class PagedKeys:
    """The locations of the keys of a step's tokens, by sequence."""

    def __init__(self, pages: Pages, spans: Sequence[Span], slots: Tensor | None = None) -> None:
        """spans: in the order of the step's tokens, which they cover. slots (T,): where the tokens'
        own keys are written; None if all keys already exist.
        """
        self.pages = pages
        self.spans = spans
        self.slots = slots
        self.longer = [span for span in spans if span.new > 1]
        singles = [span for span in spans if span.new == 1]
        # spans of one token, which most steps consist of
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
        """Return the locations with slots for the spans' own tokens."""
        slots = [slots_of(span.table, span.keys - span.new, span.keys) for span in spans]
        return PagedKeys(
            pages, spans, torch.from_numpy(np.concatenate(slots)).to(pages.data.device)
        )


def slots_of(table: NDArray[np.int32], begin: int, end: int) -> NDArray[np.int64]:
    """Return the slots of the tokens at positions begin .. end of a sequence: page * PAGE +
    position in the page.
    """
    positions = np.arange(begin, end)
    pages = table[positions // PAGE].astype(np.int64)
    return pages * PAGE + positions % PAGE


def check_pageable(config: ModelConfig) -> None:
    """Raise ModelError for an encoder-decoder whose self- and cross-attention have different
    numbers of key/value heads, which do not fit into the same pages.
    """
    if config.decoder_layers and config.decoder().n_kv_heads != config.decoder().n_heads:
        raise ModelError(
            "the decoder shares key/value heads in self-attention and not in cross-attention",
            do="this cannot be generated from here",
        )
