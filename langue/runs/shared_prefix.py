"""Prefix sharing for likelihoods: takes token sequences for a decoder; finds those with long common
prefixes, and computes each prefix once.

The keys and values of a prefix are in KV cache pages that all sequences of its group share (Kwon et
al. 2023, section 4.4); what follows is computed for each. A shared prefix consists of whole pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langue.model.cache import PAGE, PagedKeys, Pages, Span, pages_for
from langue.model.config import ModelConfig
from langue.model.language_model import LanguageModel
from langue.model.transformer import Step

FEWEST = 2 * PAGE  # minimum length of a prefix that is worth sharing, in tokens
# minimum fraction of a group's tokens to save, since paged attention is slower than a plain batch
WORTH = 0.25


@dataclass(frozen=True)
class Group:
    """Sequences with a common prefix."""

    rows: list[int]
    shared: int  # length of the common prefix, in whole pages

    def tokens(self, lengths: NDArray[np.int64]) -> int:
        """Return how many tokens have to be computed."""
        return self.shared + int((lengths[self.rows] - self.shared).sum())


def groups_of(inputs: Sequence[Sequence[int]], budget: int) -> list[Group]:
    """Return groups of inputs that are worth computing together, each of at most `budget` tokens.

    Sequences are sorted by their tokens, so that those with a common prefix are neighbours, and are
    added to a group as long as that does not reduce the savings.
    """
    lengths = np.asarray([len(each) for each in inputs], np.int64)
    arrays = [np.asarray(each, ">i4") for each in inputs]
    order = sorted(range(len(inputs)), key=lambda row: arrays[row].tobytes())
    made: list[Group] = []
    for row in order:
        last = made[-1] if made else None
        if last is not None:
            common = _whole_pages(arrays[last.rows[0]], arrays[row], last.shared)
            grown = Group([*last.rows, row], common)
            saved = (len(last.rows) - 1) * last.shared
            if (
                common >= FEWEST
                and len(last.rows) * common >= saved
                and grown.tokens(lengths) <= budget
            ):
                made[-1] = grown
                continue
        made.append(Group([row], int(lengths[row])))
    return [group for group in made if _is_worth(group, lengths)]


def _whole_pages(first: NDArray[np.int32], second: NDArray[np.int32], most: int) -> int:
    """Return the length of the common prefix of two sequences, in whole pages, leaving at least one
    token of each.
    """
    size = min(len(first) - 1, len(second) - 1, most)
    different = np.flatnonzero(first[:size] != second[:size])
    same = int(different[0]) if len(different) else size
    return max(0, same) // PAGE * PAGE


def _is_worth(group: Group, lengths: NDArray[np.int64]) -> bool:
    if len(group.rows) == 1:
        return False
    saved = (len(group.rows) - 1) * group.shared
    return saved >= WORTH * int(lengths[group.rows].sum())


def packed(
    groups: Sequence[Group], inputs: Sequence[Sequence[int]], budget: int
) -> list[list[Group]]:
    """Pack groups into batches of at most `budget` tokens."""
    lengths = np.asarray([len(each) for each in inputs], np.int64)
    batches: list[list[Group]] = []
    size = budget
    for group in groups:
        tokens = group.tokens(lengths)
        if size + tokens > budget:
            batches.append([])
            size = 0
        batches[-1].append(group)
        size += tokens
    return batches


def can_share(config: ModelConfig) -> bool:
    """Return whether the state of a token is independent of all later tokens."""
    return config.architecture == "decoder" and not config.rotates_by_length


def states_of(
    language: LanguageModel,
    groups: Sequence[Group],
    inputs: Sequence[Sequence[int]],
    wanted: dict[int, NDArray[np.int64]],
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Return the states (M, D) at the wanted positions of each row, in the order of the groups'
    rows; dtype: of the KV cache.
    """
    tokens: list[int] = []
    positions: list[NDArray[np.int64]] = []
    spans: list[Span] = []
    asked: list[NDArray[np.int64]] = []
    n_pages = 0

    def add(row: int, begin: int, end: int, table: NDArray[np.int32]) -> int:
        """Plan the tokens begin .. end of a row; return their offset in the step."""
        offset = len(tokens)
        tokens.extend(inputs[row][begin:end])
        positions.append(np.arange(begin, end))
        spans.append(Span(offset, end - begin, end, table))
        return offset

    for group in groups:
        shared = group.shared
        beginning = np.arange(n_pages, n_pages + shared // PAGE, dtype=np.int32)
        n_pages += len(beginning)
        first = add(group.rows[0], 0, shared, beginning)
        for row in group.rows:
            end = len(inputs[row])
            own = np.arange(n_pages, n_pages + pages_for(end - shared), dtype=np.int32)
            n_pages += len(own)
            rest = add(row, shared, end, np.concatenate([beginning, own]))
            places = wanted[row]
            asked.append(np.where(places < shared, first + places, rest + places - shared))
    pages = Pages(language.body.config, n_pages, dtype, device)
    return language.body.step_states(
        torch.tensor(tokens, device=device),
        torch.from_numpy(np.concatenate(positions)).to(device),
        Step(PagedKeys.of_spans(pages, spans)),
        torch.from_numpy(np.concatenate(asked)).to(device),
    )
