"""Beam search: takes the next-token log-probabilities of all running beams of a request; returns
its best complete hypotheses.

At each step the highest-scoring continuations of all beams are kept. One that ends becomes a
complete hypothesis, whose score is its log-probability divided by its length to the power
`length_penalty` (Wu et al. 2016, arXiv:1609.08144, section 7, with a plain power). The rules on
which candidates may end and when the search stops are those of `transformers`, and the results are
equal.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from langue.errors import ModelError
from langue.generation.constrain import Constraint
from langue.generation.job import Job, Row
from langue.generation.pages import PagePool
from langue.generation.request import Beams, Completion, Delta, Request
from langue.generation.sample import Chooser
from langue.generation.text import TextStream


@dataclass
class Beam:
    """An unfinished hypothesis."""

    row: Row
    chooser: Chooser
    constraint: Constraint | None
    tokens: list[int]
    score: float  # the sum of its tokens' log-probabilities


@dataclass(frozen=True)
class Hypothesis:
    """A complete hypothesis."""

    tokens: list[int]  # without the end token
    score: float
    finish_reason: Literal["stop", "length"]


class BeamJob(Job):
    """A request that is answered by beam search."""

    def begin(self) -> None:
        assert self.request.beams is not None
        _check(self.request)
        self.search_settings: Beams = self.request.beams
        self.width = self.search_settings.width
        row = Row(self.context, self.most_tokens)
        first = Beam(row, self.chooser, self.constraint, [], 0.0)
        self.beams = [first]
        self.complete: list[Hypothesis] = []  # at most `width`, best first

    @property
    def rows(self) -> list[Row]:  # type: ignore[override]
        return [beam.row for beam in self.beams]

    def advance(self, pool: PagePool, logits: Sequence[Tensor]) -> Delta:
        best = self._candidates([each[-1] for each in logits])
        length = len(self.beams[0].tokens) + 1
        chosen: list[tuple[int, int, float]] = []
        ended: list[tuple[int, Hypothesis]] = []
        for place, (parent, token, score) in enumerate(best):
            hypothesis = self._hypothesis(parent, token, score, length)
            if hypothesis is not None:
                ended.append((place, hypothesis))
            elif len(chosen) < self.width:
                chosen.append((parent, token, score))
        # candidates beyond `width` only ensure that enough beams continue if the best ones all end
        new = [hypothesis for place, hypothesis in ended if place < self.width]
        self._keep_complete(new, length)
        if not chosen or self._is_over(chosen[0][2], length):
            return self._answer()
        self._continue_with(pool, chosen)
        return Delta(self.id)

    def _candidates(self, logits: Sequence[Tensor]) -> list[tuple[int, int, float]]:
        """Return the highest-scoring continuations, (beam, token, score), best first."""
        totals = []
        for beam, row in zip(self.beams, logits, strict=True):
            if not torch.isfinite(row).all():
                raise ModelError(
                    "the logits are NaN or Inf",
                    do="its weights contain NaN or Inf: train it again with a lower train.lr",
                )
            scores = row.float().log_softmax(-1)
            allowed = None if beam.constraint is None else beam.constraint.allowed()
            totals.append(beam.chooser.process(scores, allowed) + beam.score)
        stacked = torch.stack(totals)  # (B, V)
        vocabulary = stacked.shape[1]
        count = max(2, 1 + len(self.request.config.end)) * self.width
        found = stacked.flatten().topk(min(count, stacked.numel()))
        pairs = zip(found.indices.tolist(), found.values.tolist(), strict=True)
        return [
            (place // vocabulary, place % vocabulary, score)
            for place, score in pairs
            if score > -math.inf
        ]

    def _hypothesis(self, parent: int, token: int, score: float, length: int) -> Hypothesis | None:
        """Return the hypothesis that this token completes, or None."""
        beam = self.beams[parent]
        if token in self.request.config.end:
            return Hypothesis(beam.tokens, score, "stop")
        tokens = [*beam.tokens, token]
        if self.request.stop and self._stream(tokens).stopped:
            return Hypothesis(tokens, score, "stop")
        if beam.constraint is not None and not beam.chooser.begins_forced:
            after = beam.constraint.fork()
            after.accept(token)
            if after.is_finished:
                return Hypothesis(tokens, score, "stop")
        return Hypothesis(tokens, score, "length") if length == self.limit else None

    def _keep_complete(self, new: Sequence[Hypothesis], length: int) -> None:
        """Keep the best complete hypotheses, out of the previous ones and the new ones of this
        length.
        """
        penalty = length**self.search_settings.length_penalty
        scored = [Hypothesis(each.tokens, each.score / penalty, each.finish_reason) for each in new]
        together = sorted([*self.complete, *scored], key=lambda each: -each.score)
        self.complete = together[: self.width]

    def _is_over(self, best: float, length: int) -> bool:
        """Return whether no running beam can be expected to replace a complete hypothesis.

        best: the score of the best running beam.
        """
        if len(self.complete) < self.width:
            return False
        asked = self.search_settings
        if asked.early_stopping is True:
            return True
        longest = asked.early_stopping == "never" and asked.length_penalty > 0
        hoped = self.limit if longest else length
        expected: float = best / hoped**asked.length_penalty
        return expected <= self.complete[-1].score

    def _continue_with(self, pool: PagePool, chosen: Sequence[tuple[int, int, float]]) -> None:
        """Replace the beams by the chosen continuations.

        Beams without a continuation end; if a beam has several, all but the last one continue from
        a copy of its row.
        """
        children = Counter(parent for parent, _, _ in chosen)
        alive = [beam.row for index, beam in enumerate(self.beams) if children[index]]
        for index, beam in enumerate(self.beams):
            if not children[index]:
                beam.row.release(pool)
        self.reserve_again(pool, alive)
        beams = []
        for parent, token, score in chosen:
            children[parent] -= 1
            beams.append(self._child(pool, self.beams[parent], token, score, not children[parent]))
        self.beams = beams

    def _child(self, pool: PagePool, beam: Beam, token: int, score: float, is_last: bool) -> Beam:
        """Return a beam extended by one token; the last child takes over its parent's row."""
        row = beam.row
        if not is_last:
            row, taken = beam.row.fork(pool)
            self.reserved -= taken
        constraint = beam.constraint
        if constraint is not None:
            constraint = constraint.fork()
            if not beam.chooser.begins_forced:
                constraint.accept(token)
        chooser = beam.chooser.fork(0)
        chooser.accept(token)
        row.tokens = [*self.context, *beam.tokens, token]
        row.logits_from = len(row.tokens) - 1
        return Beam(row, chooser, constraint, [*beam.tokens, token], score)

    def _stream(self, tokens: Sequence[int]) -> TextStream:
        """Decode these tokens, up to a stop string."""
        assert self.tokenizer is not None
        stream = TextStream(self.tokenizer, self.given, self.request.stop)
        for token in tokens:
            stream.add(token)
        return stream

    def _answer(self) -> Delta:
        """Finish the request with its best hypothesis; `n_best` keeps all of them."""
        wants_text = self.tokenizer is not None and (self.request.as_text or self.request.stop)
        found = []
        for each in self.complete[: self.search_settings.n]:
            text = ""
            if wants_text:
                stream = self._stream(each.tokens)
                stream.finish()
                text = stream.text
            full = each.finish_reason == "length" and self.is_cut_by_positions
            found.append(
                Completion(
                    each.tokens,
                    text,
                    each.finish_reason,
                    score=each.score,
                    prompt_tokens=self.answer.prompt_tokens,
                    cached_tokens=self.answer.cached_tokens,
                    at_last_position=full,
                )
            )
        answer = self.answer
        best = found[0]
        answer.tokens = best.tokens
        answer.text = best.text
        answer.score = best.score
        answer.at_last_position = best.at_last_position
        answer.finish_reason = best.finish_reason
        answer.n_best = found
        return Delta(self.id, best.tokens, best.text, finish_reason=best.finish_reason)


def _check(request: Request) -> None:
    """Raise ModelError for sampling settings that beam search does not support."""
    sampling = request.sampling
    if sampling.temperature > 0:
        what = f"beams choose the likeliest texts, and temperature = {sampling.temperature} draws"
        raise ModelError(what, do="give one of the two")
    if sampling.logprobs is not None or request.prompt_logprobs:
        raise ModelError(
            "log-probabilities of tokens are not kept with beams",
            do="leave them out; details has each answer's score",
        )
