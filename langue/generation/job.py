"""What arrives: a request, and the logits of its next tokens, step by step. What leaves: its
tokens, and the pages that its sequences hold.

A job is one request at work. It has one row a sequence that it writes: `SampleJob`, here, has one;
beams have several (generation/beam.py).
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

TRIED = 16  # guesses, after which a job whose guesses are seldom right makes none for a while
LEAST_RIGHT = 0.2  # share of them
PAUSE = 64  # tokens


class Row:
    """One sequence: its tokens, and the pages of those whose keys and values are computed."""

    def __init__(self, tokens: Sequence[int], most: int) -> None:
        """most: tokens that it may come to have in pages."""
        self.tokens = list(tokens)
        self.computed = 0  # how many of the tokens have keys and values
        self.turned_for = len(self.tokens)  # of how many tokens' positions its keys were turned
        self.asked_from = len(self.tokens) - 1  # the first token whose logits are wanted
        self.table = np.zeros(pages_for(most), np.int32)
        self.n_pages = 0  # of the table, those that are there
        self.drafted = 0  # how many have them in a draft model's pages
        self.first_page = 0  # before it the pages are given back: no later token sees them
        self.memory = np.zeros(0, np.int32)  # pages of what an encoder made of the source

    @property
    def waiting(self) -> int:
        """Tokens that are to be computed."""
        return len(self.tokens) - self.computed

    def grow(self, pool: PagePool, tokens: int) -> None:
        """Have pages for so many tokens."""
        for index in range(self.n_pages, pages_for(tokens)):
            self.table[index] = pool.take()
            self.n_pages = index + 1

    def turn_anew(self, switch: int) -> None:
        """Have all keys computed again where the sequence has become longer than `switch`, beyond
        which positions turn otherwise.
        """
        if self.turned_for <= switch < len(self.tokens):
            self.computed = 0
        self.turned_for = len(self.tokens)

    def leave(self, pool: PagePool, window: int) -> None:
        """Give back the pages that a window has left."""
        end = max(self.first_page, first_page_in_window(self.computed, window))
        for page in self.table[self.first_page : end].tolist():
            pool.release(page)
        self.first_page = end

    @property
    def pages(self) -> list[int]:
        """All that it holds."""
        return [*self.table[self.first_page : self.n_pages].tolist(), *self.memory.tolist()]

    def fork(self, pool: PagePool) -> tuple["Row", int]:
        """The same sequence, which goes on by itself: whole pages are shared, the last one, if it
        is not full, is copied. And how many pages were taken for it.
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
        """Give back all pages."""
        for page in self.pages:
            pool.release(page)
        self.n_pages = self.first_page = 0
        self.memory = self.memory[:0]


class Job(ABC):
    """A request at work."""

    rows: list[Row]
    width = 1  # most rows that it has at a time
    n_unsure = 0  # tokens at a row's end that were guessed

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
        """context: a decoder's prompt; None: an encoder reads it, and what is gone on from is the
        start token. limit: new tokens that are asked for; positions: those that the model has
        positions for. constraint: what the text is held to, from its beginning.
        """
        self.id = id
        self.request = request
        self.given = context
        self.has_source = context is None
        self.context = [request.config.start] if context is None else list(context)
        self.limit = min(limit, positions)
        self.at_positions = positions < limit
        self.tokenizer = tokenizer
        self.constraint = constraint
        self.chooser = Chooser(
            request.sampling, request.config, self.context, limit, vocabulary, request.sample
        )
        self.answer = Completion(prompt_tokens=len(request.prompt))
        self.worst = 0  # pages promised to it, those that it holds of others' prompts left out
        self.known: frozenset[int] = frozenset()  # these
        self.reserved = 0  # pages promised and not taken yet
        self.keys = chunk_keys(self.context, request.owner)
        self.key_set = set(self.keys)
        self.n_kept = 0  # of the chunks that these are of, those that are known to all
        self.begin()

    @abstractmethod
    def begin(self) -> None:
        """Make the first row, and what else the kind of job has."""

    @property
    def most_tokens(self) -> int:
        """Tokens of one row that have keys and values in the worst case: the last one written is
        never read.
        """
        return len(self.context) + self.limit - 1

    def worst_pages(self, window: int, step_tokens: int) -> int:
        """Pages that it may come to hold at one time; window: the widest that any layer has, 0
        where one sees everything; step_tokens: most of a prompt's tokens in one step.
        """
        pages = pages_for(self.most_tokens)
        if window:
            pages = min(pages, pages_for(window + max(step_tokens, CHUNK)) + 1)
        return pages * self.width + pages_for(len(self.request.prompt) if self.has_source else 0)

    @abstractmethod
    def advance(self, pool: PagePool, logits: Sequence[Tensor]) -> Delta:
        """Go on by what the model says of each row's asked tokens, (asked, V) each; pool: for rows
        that begin and end.
        """

    def finish(self, reason: FinishReason, error: LangueError | None = None) -> Delta:
        """The last delta, with the text that was held back."""
        text = self.rest()
        self.answer.text += text
        self.answer.finish_reason = reason
        self.answer.error = error
        return Delta(self.id, text=text, finish_reason=reason, error=error)

    def rest(self) -> str:
        """Text that was held back since what follows might have changed it."""
        return ""

    def promise_again(self, pool: PagePool, rows: Sequence[Row]) -> None:
        """Have what was given back promised again: the rows may come to need as much."""
        held = {page for row in rows for page in row.pages} - self.known
        missing = self.worst - len(held) - self.reserved
        if missing > 0:
            kept = pool.reserve(missing)
            assert kept, "what was given back is not there"
            self.reserved += missing

    def release(self, pool: PagePool) -> None:
        """Give back all pages and promises."""
        for row in self.rows:
            row.release(pool)
        pool.unreserve(self.reserved)
        self.reserved = 0


class SampleJob(Job):
    """One sequence, whose next token is the likeliest or drawn."""

    def begin(self) -> None:
        request = self.request
        self.rows = [Row(self.context, self.most_tokens)]
        self.stream: TextStream | None = None
        if self.tokenizer is not None and (request.as_text or request.stop):
            self.stream = TextStream(self.tokenizer, self.given, request.stop)
        if request.prompt_logprobs:
            self.rows[0].asked_from = 0
            self.answer.prompt_choices.append(None)

        self.guesses: list[int] = []  # tokens of the row that are there to be checked
        self.n_guessed = 0  # since the last pause
        self.n_right = 0
        self.pause = 0  # tokens to write without guesses

    @property
    def may_guess(self) -> int:
        """How many tokens may be guessed: the last one that there is room for is not."""
        if self.pause or not self.answer.tokens:
            return 0
        return self.limit - len(self.answer.tokens) - 1

    @property
    def n_unsure(self) -> int:  # type: ignore[override]
        return len(self.guesses)

    def guess(self, tokens: Sequence[int]) -> None:
        """Have the model check these as the next tokens."""
        self.guesses = list(tokens)
        self.rows[0].tokens += self.guesses

    @property
    def allowed(self) -> Tensor | None:
        """The tokens that a constraint allows next, (V,)."""
        return None if self.constraint is None else self.constraint.allowed()

    def advance(self, pool: PagePool, logits: Sequence[Tensor]) -> Delta:
        """Choose at each guessed place until a guess is wrong."""
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
        self._judge_guesses(len(guesses), n_right)
        return delta

    def _judge_guesses(self, count: int, n_right: int) -> None:
        """Make no guesses for a while where they are seldom right: each costs a token's work."""
        self.n_guessed += count
        self.n_right += n_right
        if self.n_guessed >= TRIED:
            if self.n_right < LEAST_RIGHT * self.n_guessed:
                self.pause = PAUSE
            self.n_guessed = self.n_right = 0

    def is_ready(self, logits: Tensor) -> bool:
        """Whether the last of these logits are of the next token; those before, of the prompt's
        tokens, are kept where they were asked for.
        """
        row = self.rows[0]
        if self.request.prompt_logprobs and not self.answer.tokens:
            self.read_prompt(logits)
        row.asked_from = max(row.asked_from, row.computed)
        return row.computed == len(row.tokens)

    def read_prompt(self, logits: Tensor) -> None:
        """Keep the log-probabilities of the prompt's tokens that follow those of these logits."""
        begin = len(self.answer.prompt_choices)
        following = self.context[begin : begin + len(logits)]
        raw = logits[: len(following)].float().log_softmax(-1)  # (n, V)
        top = raw.topk(min(self.request.sampling.logprobs or 0, raw.shape[-1]))
        for row, token in enumerate(following):
            best = zip(top.indices[row].tolist(), top.values[row].tolist(), strict=True)
            self.answer.prompt_choices.append(Choice(token, float(raw[row, token]), tuple(best)))

    def accept(self, choice: Choice) -> Delta:
        """Go on with the token that was chosen."""
        row = self.rows[0]
        answer = self.answer
        token = choice.token
        if token in self.request.config.end:
            return self._end("stop", [], [])
        row.tokens.append(token)
        row.asked_from = len(row.tokens) - 1
        # a language that its model is made to write first is no part of the text
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
            answer.at_last_position = self.at_positions
            return self._end("length", [token], choices, text)
        return Delta(self.id, [token], text, choices)

    def rest(self) -> str:
        return "" if self.stream is None else self.stream.finish()

    def _end(
        self, reason: FinishReason, tokens: list[int], choices: list[Choice], text: str = ""
    ) -> Delta:
        last = self.finish(reason)
        return Delta(self.id, tokens, text + last.text, choices, reason)
