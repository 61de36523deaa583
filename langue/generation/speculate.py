"""Speculative decoding (Leviathan et al. 2023, arXiv:2211.17192): takes sequences in decoding;
proposes their next tokens, which the model verifies in one step instead of several.

The acceptance rule does not change the text: the model chooses the token at each speculated
position as it always does, with the random number of that position, and a proposed token is
accepted if it is the chosen one. The text is then the same as without speculation, except where
rounding decides between two tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch

from langue.errors import ModelError
from langue.generation.job import SampleJob
from langue.generation.pages import CHUNK
from langue.generation.sample import choose
from langue.model.cache import PagedKeys, Pages, Span
from langue.model.language_model import LanguageModel
from langue.model.transformer import Step

LONGEST_MATCH = 4  # length of the n-gram at the end of a sequence that is looked up
SHORTEST_MATCH = 2


class Drafter(ABC):
    """Proposes the next tokens of sequences."""

    @abstractmethod
    def page_bytes(self) -> int:
        """Return the bytes that it needs for one page."""

    @abstractmethod
    def make_pages(self, count: int, device: torch.device) -> None:
        """Allocate its own storage for the pages of the model."""

    @abstractmethod
    def propose(self, jobs: Sequence[SampleJob], counts: Sequence[int]) -> list[list[int]]:
        """Return at most `counts` next tokens for each job."""


class PromptLookup(Drafter):
    """Prompt lookup decoding (Saxena 2023): proposes what followed the last few tokens earlier in
    the sequence, for answers that repeat parts of their prompt.
    """

    def page_bytes(self) -> int:
        return 0

    def make_pages(self, count: int, device: torch.device) -> None:
        return None

    def propose(self, jobs: Sequence[SampleJob], counts: Sequence[int]) -> list[list[int]]:
        return [look_up(job.rows[0].tokens, count) for job, count in zip(jobs, counts, strict=True)]


def look_up(tokens: Sequence[int], count: int) -> list[int]:
    """Return what followed the most recent occurrence of the longest suffix that occurred
    before.
    """
    known = np.asarray(tokens, np.int64)
    for size in range(min(LONGEST_MATCH, len(known) - 1), SHORTEST_MATCH - 1, -1):
        windows = np.lib.stride_tricks.sliding_window_view(known[:-1], size)
        found = np.flatnonzero((windows == known[-size:]).all(1))
        if len(found):
            begin = int(found[-1]) + size
            return list(tokens[begin : begin + count])
    return []


class DraftModel(Drafter):
    """A smaller model with the same vocabulary, whose keys and values are in pages of its own with
    the same page numbers.
    """

    def __init__(self, model: LanguageModel, target: LanguageModel) -> None:
        own = model.body.config
        other = target.body.config
        if own.architecture != "decoder" or other.architecture != "decoder":
            raise ModelError("a draft model and its target are decoders", do="leave it out")
        if own.vocab_size != other.vocab_size:
            raise ModelError(
                f"the draft model knows {own.vocab_size:,} tokens, and the model"
                f" {other.vocab_size:,}",
                do="take one with the same tokenizer",
            )
        self.model = model
        self.pages: Pages | None = None

    def page_bytes(self) -> int:
        return Pages.bytes_each(self.model.body.config, torch.float32)

    def make_pages(self, count: int, device: torch.device) -> None:
        self.pages = Pages(self.model.body.config, count, torch.float32, device)

    def propose(self, jobs: Sequence[SampleJob], counts: Sequence[int]) -> list[list[int]]:
        """Propose tokens with the random numbers that the model will choose by, so that both choose
        the same token wherever their distributions agree.
        """
        guessed: list[list[int]] = [[] for _ in jobs]
        for place in range(max(counts, default=0)):
            going = [row for row, count in enumerate(counts) if count > place]
            going = [row for row in going if len(jobs[row].rows[0].tokens) < self._positions]
            if not going:
                break
            logits = self._logits([jobs[row] for row in going], [guessed[row] for row in going])
            for row, scores in zip(going, logits, strict=True):
                chooser = jobs[row].chooser
                (choice,) = choose(scores[None], [chooser], [None])
                # of the draft model only; the model itself continues
                if isinstance(choice, ModelError):
                    counts = [*counts[:row], 0, *counts[row + 1 :]]
                    continue
                chooser.accept(choice.token)
                guessed[row].append(choice.token)
        for job, tokens in zip(jobs, guessed, strict=True):
            job.chooser.undo(len(tokens))
            # the last proposed token was not fed back, and rejected ones are recomputed
            job.rows[0].drafted = min(job.rows[0].drafted, len(job.rows[0].tokens))
        return guessed

    @property
    def _positions(self) -> int:
        return self.model.body.config.longest

    def _logits(self, jobs: Sequence[SampleJob], guessed: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the draft model's logits (N, V) after each job's tokens and proposed tokens."""
        assert self.pages is not None
        device = self.pages.data.device
        tokens: list[int] = []
        positions = []
        spans = []
        last = []
        for job, guesses in zip(jobs, guessed, strict=True):
            row = job.rows[0]
            whole = [*row.tokens, *guesses]
            while row.drafted < len(whole):
                begin = row.drafted
                end = min(len(whole), (begin // CHUNK + 1) * CHUNK)
                spans.append(Span(len(tokens), end - begin, end, row.table))
                tokens += whole[begin:end]
                positions.append(np.arange(begin, end))
                row.drafted = end
            last.append(len(tokens) - 1)
        hidden = self.model.body.step_states(
            torch.tensor(tokens, device=device),
            torch.from_numpy(np.concatenate(positions)).to(device),
            Step(PagedKeys.of_spans(self.pages, spans)),
            torch.tensor(last, device=device),
        )
        return self.model.logits(hidden).float()
