"""The work on one request: takes the request and, step by step, the logits of its next tokens;
returns its tokens, and holds the KV cache pages of its sequences.

A job has one row for each sequence that it generates: `SampleJob`, here, has one; beam search has
several (generation/beam.py).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy

import numpy as np
from torch import Tensor

from langue.errors import LangueError
from langue.generation.constrain import Constraint
from langue.generation.pages import CHUNK, PagePool, chunk_keys
from langue.generation.request import Completion, Delta, FinishReason, Request
from langue.generation.sample import Choice, Chooser
from langue.generation.text import TextStream
from langue.model.cache import PAGE, first_page_in_window, pages_for
from langue.text.tokenizers.tokenizer import Tokenizer

TRIED = 16  # number of speculated tokens after which their acceptance rate is checked
LEAST_RIGHT = 0.2  # lowest acceptance rate at which speculation goes on
PAUSE = 64  # tokens without speculation after a lower rate


class Row:
    """One sequence: its tokens, and the pages of those whose keys and values are computed."""

    def __init__(self, tokens: Sequence[int], most: int) -> None:
        """most: maximum number of tokens in its pages."""
        self.tokens = list(tokens)
        self.computed = 0  # number of tokens with keys and values
        self.rotated_for = len(self.tokens)  # sequence length for which its keys were rotated
        self.logits_from = len(self.tokens) - 1  # first token whose logits are needed
        self.table = np.zeros(pages_for(most), np.int32)
        self.n_pages = 0  # number of allocated entries of the table
        self.drafted = 0  # number of tokens with keys and values in a draft model's pages
        self.first_page = 0  # earlier pages are freed, since no later token attends to them
        self.encoder_pages = np.zeros(0, np.int32)  # pages of the encoder's keys and values

    @property
    def waiting(self) -> int:
        """Number of tokens to compute."""
        return len(self.tokens) - self.computed

    def grow(self, pool: PagePool, tokens: int) -> None:
        """Allocate pages for this number of tokens."""
        for index in range(self.n_pages, pages_for(tokens)):
            self.table[index] = pool.take()
            self.n_pages = index + 1

    def rotate_again(self, switch: int) -> None:
        """Mark all keys for recomputation if the sequence has grown beyond `switch`, where the
        rotary scaling changes.
        """
        if self.rotated_for <= switch < len(self.tokens):
            self.computed = 0
        self.rotated_for = len(self.tokens)

    def free_outside_window(self, pool: PagePool, window: int) -> None:
        """Free the pages outside of the attention window."""
        end = max(self.first_page, first_page_in_window(self.computed, window))
        for page in self.table[self.first_page : end].tolist():
            pool.release(page)
        self.first_page = end

    @property
    def pages(self) -> list[int]:
        """All pages that the row holds."""
        return [*self.table[self.first_page : self.n_pages].tolist(), *self.encoder_pages.tolist()]

    def fork(self, pool: PagePool) -> tuple["Row", int]:
        """Return an independent copy of the sequence, and the number of pages taken for it.

        Full pages are shared; a partially filled last page is copied.
        """
        other = copy(self)
        other.tokens = list(self.tokens)
        other.table = self.table.copy()
        taken = 0
        for page in self.pages:
            pool.hold(page)
        if self.computed % PAGE:
            last = self.n_pages - 1
            pool.release(int(self.table[last]))
            other.table[last] = pool.take()
            pool.copy(int(self.table[last]), int(other.table[last]))
            taken = 1
        return other, taken

    def release(self, pool: PagePool) -> None:
        """Free all pages."""
        for page in self.pages:
            pool.release(page)
        self.n_pages = self.first_page = 0
        self.encoder_pages = self.encoder_pages[:0]


class Job(ABC):
    """A request in progress."""

    rows: list[Row]
    width = 1  # maximum number of rows at a time
    n_unverified = 0  # number of speculated tokens at the end of a row

    def __init__(
        self,
        id: int,
        request: Request,
        context: Sequence[int] | None,
        limit: int,
        *,
        vocabulary: int,
        positions: int,
        tokenizer: Tokenizer | None = None,
        constraint: Constraint | None = None,
    ) -> None:
        """context: a decoder's prompt; None: an encoder reads the prompt, and generation starts
        from the start token. limit: requested number of new tokens. positions: number of new tokens
        for which the model has positions. constraint: constraint on the text, in its initial state.
        """
        self.id = id
        self.request = request
        self.given = context
        self.has_source = context is None
        self.context = [request.config.start] if context is None else list(context)
        self.limit = min(limit, positions)
        self.is_cut_by_positions = positions < limit
        self.tokenizer = tokenizer
        self.constraint = constraint
        self.chooser = Chooser(
            request.sampling, request.config, self.context, limit, vocabulary, request.sample
        )
        self.answer = Completion(prompt_tokens=len(request.prompt))
        self.worst = 0  # pages reserved for it, not counting those shared from the prefix cache
        self.known: frozenset[int] = frozenset()  # the shared ones
        self.reserved = 0  # pages reserved and not yet taken
        self.keys = chunk_keys(self.context, request.owner)
        self.key_set = set(self.keys)
        self.n_kept = 0  # number of its prompt chunks that are registered in the prefix cache
        self.begin()

    @abstractmethod
    def begin(self) -> None:
        """Create the first row, and other state of this kind of job."""

    @property
    def most_tokens(self) -> int:
        """Maximum number of tokens of a row with keys and values: the last generated token is never
        fed back.
        """
        return len(self.context) + self.limit - 1

    def worst_pages(self, window: int, step_tokens: int) -> int:
        """Return the maximum number of pages that it may hold at one time.

        window: the largest attention window of all layers, 0 for full attention. step_tokens:
        maximum number of prefill tokens in a step.
        """
        pages = pages_for(self.most_tokens)
        if window:
            pages = min(pages, pages_for(window + max(step_tokens, CHUNK)) + 1)
        return pages * self.width + pages_for(len(self.request.prompt) if self.has_source else 0)

    @abstractmethod
    def advance(self, pool: PagePool, logits: Sequence[Tensor]) -> Delta:
        """Advance by the logits of each row's requested tokens, (asked, V) each.

        pool: for rows that are created or freed.
        """

    def finish(self, reason: FinishReason, error: LangueError | None = None) -> Delta:
        """Return the last delta, with the text that was held back."""
        text = self.rest()
        self.answer.text += text
        self.answer.finish_reason = reason
        self.answer.error = error
        return Delta(self.id, text=text, finish_reason=reason, error=error)

    def rest(self) -> str:
        """Return text that was held back because later tokens might have changed it."""
        return ""

    def reserve_again(self, pool: PagePool, rows: Sequence[Row]) -> None:
        """Reserve again the pages that were freed, since the rows may come to need as many."""
        held = {page for row in rows for page in row.pages} - self.known
        missing = self.worst - len(held) - self.reserved
        if missing > 0:
            kept = pool.reserve(missing)
            assert kept, "what was given back is not there"
            self.reserved += missing

    def release(self, pool: PagePool) -> None:
        """Free all pages and reservations."""
        for row in self.rows:
            row.release(pool)
        pool.unreserve(self.reserved)
        self.reserved = 0


class SampleJob(Job):
    """One sequence, whose next token is the argmax or sampled."""

    def begin(self) -> None:
        request = self.request
        self.rows = [Row(self.context, self.most_tokens)]
        self.stream: TextStream | None = None
        if self.tokenizer is not None and (request.as_text or request.stop):
            self.stream = TextStream(self.tokenizer, self.given, request.stop)
        if request.prompt_logprobs:
            self.rows[0].logits_from = 0
            self.answer.prompt_choices.append(None)

        self.guesses: list[int] = []  # speculated tokens at the end of the row
        self.n_guessed = 0  # number of speculated tokens since the last pause
        self.n_right = 0
        self.pause = 0  # number of tokens to generate without speculation

    @property
    def max_guesses(self) -> int:
        """Maximum number of tokens to speculate; the last token that fits is never speculated."""
        if self.pause or not self.answer.tokens:
            return 0
        return self.limit - len(self.answer.tokens) - 1

    @property
    def n_unverified(self) -> int:  # type: ignore[override]
        return len(self.guesses)

    def guess(self, tokens: Sequence[int]) -> None:
        """Append speculated tokens, for the model to verify."""
        self.guesses = list(tokens)
        self.rows[0].tokens += self.guesses

    @property
    def allowed(self) -> Tensor | None:
        """Mask (V,) of the tokens that the constraint allows next."""
        return None if self.constraint is None else self.constraint.allowed()

    def advance(self, pool: PagePool, logits: Sequence[Tensor]) -> Delta:
        """Choose a token at each speculated position, until one differs from the speculated
        token.
        """
        row = self.rows[0]
        guesses = self.guesses
        self.guesses = []
        del row.tokens[len(row.tokens) - len(guesses) :]
        delta = Delta(self.id)
        n_right = 0
        for place, scores in enumerate(logits[0]):
            choice = self.chooser.choose(scores, self.allowed)
            delta = delta.followed_by(self.accept(choice))
            is_right = place < len(guesses) and choice.token == guesses[place]
            if delta.finish_reason is not None or not is_right:
                break
            n_right += 1
        row.computed = len(row.tokens) - 1
        self._check_acceptance(len(guesses), n_right)
        return delta

    def _check_acceptance(self, count: int, n_right: int) -> None:
        """Pause speculation if the acceptance rate is low, since each rejected token costs the work
        of one.
        """
        self.n_guessed += count
        self.n_right += n_right
        if self.n_guessed >= TRIED:
            if self.n_right < LEAST_RIGHT * self.n_guessed:
                self.pause = PAUSE
            self.n_guessed = self.n_right = 0

    def is_ready(self, logits: Tensor) -> bool:
        """Return whether the last of these logits belong to the next token; those of prompt tokens
        are recorded first if they were requested.
        """
        row = self.rows[0]
        if self.request.prompt_logprobs and not self.answer.tokens:
            self.read_prompt(logits)
        row.logits_from = max(row.logits_from, row.computed)
        return row.computed == len(row.tokens)

    def read_prompt(self, logits: Tensor) -> None:
        """Record the log-probabilities of the prompt tokens that follow those of these logits."""
        begin = len(self.answer.prompt_choices)
        following = self.context[begin : begin + len(logits)]
        raw = logits[: len(following)].float().log_softmax(-1)  # (n, V)
        top = raw.topk(min(self.request.sampling.logprobs or 0, raw.shape[-1]))
        for row, token in enumerate(following):
            best = zip(top.indices[row].tolist(), top.values[row].tolist(), strict=True)
            self.answer.prompt_choices.append(Choice(token, float(raw[row, token]), tuple(best)))

    def accept(self, choice: Choice) -> Delta:
        """Append the chosen token."""
        row = self.rows[0]
        answer = self.answer
        token = choice.token
        if token in self.request.config.end:
            return self._end("stop", [], [])
        row.tokens.append(token)
        row.logits_from = len(row.tokens) - 1
        # a forced first token, such as mBART's language code, is no part of the text
        is_free = not self.chooser.begins_forced
        self.chooser.accept(token)
        answer.tokens.append(token)
        self.pause = max(0, self.pause - 1)
        wants = self.request.sampling.logprobs is not None
        choices = [choice] if wants else []
        answer.choices += choices
        text = ""
        if self.stream is not None:
            text = self.stream.add(token)
            answer.text += text
        if self.constraint is not None and is_free:
            self.constraint.accept(token)
        if self.stream is not None and self.stream.stopped:
            return self._end("stop", [token], choices, text)
        if self.constraint is not None and self.constraint.is_finished:
            return self._end("stop", [token], choices, text)
        if len(answer.tokens) == self.limit:
            answer.at_last_position = self.is_cut_by_positions
            return self._end("length", [token], choices, text)
        return Delta(self.id, [token], text, choices)

    def rest(self) -> str:
        return "" if self.stream is None else self.stream.finish()

    def _end(
        self, reason: FinishReason, tokens: list[int], choices: list[Choice], text: str = ""
    ) -> Delta:
        last = self.finish(reason)
        return Delta(self.id, tokens, text + last.text, choices, reason)
