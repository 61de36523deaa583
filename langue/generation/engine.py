"""The generation engine: takes requests at any time; generates the continuations of all of them,
one step at a time.

A step is a flat batch of tokens from many sequences: one new token for each sequence in decoding,
and chunks of the prompts in prefill (continuous batching; Orca, Yu et al. 2022). It uses the same
ragged batches as training, with a paged KV cache. The result of a request does not depend on the
other requests of a batch: each sequence attends to itself only, prompts are chunked at fixed
positions, and every sequence has its own random numbers.

The engine has no thread and no clock; the caller of `step` has both.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from langue.errors import LangueError, ModelError
from langue.generation.beam import BeamJob
from langue.generation.constrain import Constraint
from langue.generation.job import Job, Row, SampleJob
from langue.generation.pages import CHUNK, PagePool
from langue.generation.request import Completion, Delta, Request
from langue.generation.sample import choose
from langue.generation.speculate import Drafter
from langue.generation.turns import Turns
from langue.model.cache import PAGE, PagedKeys, Pages, Span, check_pageable, pages_for, slots_of
from langue.model.config import ModelConfig
from langue.model.language_model import LanguageModel
from langue.model.transformer import Step
from langue.model.weight_linear import device_of
from langue.runtime import free_memory
from langue.text.tokenizers.tokenizer import Tokenizer

STEP_TOKENS = 512  # prefill tokens per step, in addition to the tokens in decoding
MOST_ROWS = 256  # maximum number of sequences in decoding
GUESSES = 4  # speculated tokens per sequence and step, with a drafter
# mean number of positions per sequence for which memory is reserved by default
MOST_POSITIONS = 8192
MEMORY_SHARE = 0.5  # fraction of the free memory for the KV cache, if no budget is given


class Engine:
    """Continuous batching: requests join and leave a running batch at any step."""

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer | None = None,
        *,
        memory: int | None = None,
        rows: int = MOST_ROWS,
        tokens: int | None = None,
        step_tokens: int = STEP_TOKENS,
        dtype: torch.dtype = torch.float32,
        drafter: Drafter | None = None,
        guesses: int = GUESSES,
    ) -> None:
        """memory: budget of the KV cache in bytes, never exceeded; None: half of the free memory.
        rows: maximum number of sequences in decoding. tokens: maximum number of tokens of all of
        them together. tokenizer: needed for text and stop strings. step_tokens: maximum number of
        prefill tokens in a step. dtype: of the matrix products, if not that of the weights.
        drafter: proposes up to `guesses` next tokens in a step, which the model verifies together.
        """
        config = model.body.config
        if config.architecture == "encoder":
            raise ModelError("an encoder sees both ways and does not generate")
        check_pageable(config)
        self.model = model
        self.tokenizer = tokenizer
        self.device = device_of(model)
        self.dtype = dtype
        self.step_tokens = step_tokens
        self.most_rows = rows
        self.positions = config.longest
        self.vocabulary = config.decoder_vocab_size or config.vocab_size
        self.is_decoder = config.architecture == "decoder"
        writer = config if self.is_decoder else config.decoder()
        self.switch = writer.rotary_switch
        # 0: no pages are freed before the end; all keys may have to be rotated again
        self.window = 0 if self.switch else _largest_window(writer)
        # with these, the keys of a prefix depend on what follows it, so prefixes cannot be shared
        self._shares = not self.window and not writer.rotates_by_length and self.is_decoder
        self.drafter = drafter
        self.guesses = guesses
        each = Pages.bytes_each(writer, dtype) + (drafter.page_bytes() if drafter else 0)
        if memory is None:
            memory = int(free_memory(self.device) * MEMORY_SHARE)
        most = rows * min(writer.longest, MOST_POSITIONS) if tokens is None else tokens
        count = min(pages_for(most) + rows, memory // each)
        self.page_bytes = each
        self.pages = Pages(writer, max(0, count), dtype, self.device)
        self.pool = PagePool(max(0, count), self.pages.copy)
        if drafter is not None:
            drafter.make_pages(self.pool.count, self.device)
        self.waiting: list[Job] = []
        self.running: list[Job] = []
        self.answers: dict[int, Completion] = {}
        self._ids = 0
        self._turns = Turns()  # counts the tokens with which each owner's requests were admitted
        self._late_deltas: list[Delta] = []  # of requests that ended outside of a step

    @property
    def has_work(self) -> bool:
        """Whether a step would do something."""
        return bool(self.waiting or self.running or self._late_deltas)

    def submit(self, request: Request, constraint: Constraint | None = None) -> int:
        """Queue a request and return its id; raise ModelError if it can never be answered."""
        prompt = list(request.prompt)
        if not prompt:
            raise ModelError("a prompt is empty", do="give at least one token")
        size = self.model.body.config.vocab_size
        wrong = next((token for token in prompt if not 0 <= token < size), None)
        if wrong is not None:
            raise ModelError(
                f"token {wrong} is not in the vocabulary", do=f"give ids from 0 to {size - 1:,}"
            )
        if len(prompt) > self.positions:
            raise ModelError(
                f"a prompt of {len(prompt):,} tokens, and the model has {self.positions:,}"
                " positions",
                do="shorten it",
            )
        if (request.stop or request.as_text) and self.tokenizer is None:
            raise ModelError("text and stop strings need a tokenizer", do="give the engine one")
        job = self._job(request, prompt, constraint)
        if job.width > self.most_rows:
            raise ModelError(
                f"{job.width} beams, and the engine writes {self.most_rows} sequences at a time",
                do="give fewer beams, or the engine more rows",
            )
        worst = job.worst_pages(self.window, self.step_tokens)
        if worst > self.pool.count:
            have = self.pool.count * self.page_bytes
            raise ModelError(
                f"the request may need {worst * self.page_bytes:,} bytes for keys and values, and"
                f" the budget is {have:,}",
                do="lower max_tokens or shorten the prompt, or give more memory",
            )
        self.answers[job.id] = job.answer
        present = [each.request.owner for each in [*self.waiting, *self.running]]
        self._turns.join(request.owner, present)
        self.waiting.append(job)
        return job.id

    def _job(self, request: Request, prompt: list[int], constraint: Constraint | None) -> Job:
        given = len(prompt) if self.is_decoder else 1
        limit = request.sampling.max_tokens
        if limit is None:
            limit = request.config.new_tokens(given)
        self._ids += 1
        kind = SampleJob if request.beams is None else BeamJob
        return kind(
            self._ids,
            request,
            prompt if self.is_decoder else None,
            limit,
            vocabulary=self.vocabulary,
            # the last generated token needs no position, since it is never fed back
            positions=self.positions - given + 1,
            tokenizer=self.tokenizer,
            constraint=constraint,
        )

    def cancel(self, id: int) -> None:
        """Remove a request, which the next step reports; a finished request stays as it is."""
        for job in [*self.waiting, *self.running]:
            if job.id == id:
                self._late_deltas.append(job.finish("cancelled"))
                self._remove(job)

    def collect(self, id: int) -> Completion:
        """Return the state of a request; a finished request is then forgotten."""
        answer = self.answers[id]
        if answer.finish_reason is not None:
            del self.answers[id]
        return answer

    @torch.no_grad()
    def step(self, now: float = 0.0) -> list[Delta]:
        """Advance every running sequence by a token or by chunks of its prompt, and return what is
        new.

        now: the time on the clock of the requests' deadlines.
        """
        self._expire(now)
        deltas = self._late_deltas
        self._late_deltas = []
        self._admit()
        if self.drafter is not None:
            self._speculate(self.drafter)
        plan = self._plan()
        if plan.spans:
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                logits = self._run(plan)
            deltas += self._deliver(plan, logits)
        return deltas

    def run(self) -> None:
        """Step until all requests are finished."""
        while self.has_work:
            self.step()

    def _expire(self, now: float) -> None:
        for job in [*self.waiting, *self.running]:
            deadline = job.request.deadline
            if deadline is not None and now >= deadline:
                self._late_deltas.append(job.finish("deadline"))
                self._remove(job)

    def _remove(self, job: Job) -> None:
        if job in self.running:
            self.running.remove(job)
            job.release(self.pool)
        else:
            self.waiting.remove(job)

    def _admit(self) -> None:
        """Admit waiting requests as long as the worst case of each fits into memory.

        The order is by priority, then by the owner who has received the least, then by arrival. No
        request overtakes one that does not fit. A request that waits for a prefix that another
        request is computing does not block the others.
        """
        admitted = []
        rows = sum(job.width for job in self.running)
        reading = {key for job in self.running for key in self._unread(job)}
        queue = sorted(self.waiting, key=self._rank)
        for job in queue:
            if rows + job.width > self.most_rows:
                break
            if self._shares and not reading.isdisjoint(job.key_set):
                continue
            if not self._reserve(job):
                break
            rows += job.width
            reading |= set(self._unread(job))
            self.waiting.remove(job)
            self.running.append(job)
            self._turns.take(job.request.owner, len(job.context) + job.limit)
            admitted.append(job)
        if admitted and not self.is_decoder:
            self._encode(admitted)
        if not self.waiting and not self.running:
            self._turns.clear()

    def _rank(self, job: Job) -> tuple[int, int, int]:
        return -job.request.priority, self._turns[job.request.owner], job.id

    def _unread(self, job: Job) -> list[bytes]:
        """Return the keys of the prompt chunks that a job is about to compute."""
        return job.keys[job.rows[0].computed // CHUNK :] if self._shares else []

    def _reserve(self, job: Job) -> bool:
        """Reserve a job's worst case and return whether that succeeded; cached prefix pages of its
        prompt are then shared with it.
        """
        row = job.rows[0]
        asked_for_all = row.logits_from == 0 and len(row.tokens) > 1
        known = self.pool.known(job.keys) if self._shares and not asked_for_all else []
        pages = [page for chunk in known for page in chunk]
        for page in pages:
            self.pool.hold(page)
        need = job.worst_pages(self.window, self.step_tokens) - len(pages)
        if not self.pool.reserve(need):
            for page in pages:
                self.pool.release(page)
            return False
        job.worst = job.reserved = need
        job.known = frozenset(pages)
        row.table[: len(pages)] = pages
        row.n_pages = len(pages)
        row.computed = len(pages) * PAGE
        job.answer.cached_tokens = row.computed
        return True

    def _encode(self, jobs: Sequence[Job]) -> None:
        """Run the encoder on the sources, and write the decoder's cross-attention keys and values
        to pages.
        """
        sources = [np.asarray(job.request.prompt, np.int64) for job in jobs]
        bounds = np.cumsum([0, *(len(source) for source in sources)]).tolist()
        # each source is a group of its own, so that its results do not depend on the others
        groups = [(begin, 1, len(each)) for begin, each in zip(bounds, sources, strict=False)]
        tokens = torch.from_numpy(np.concatenate(sources)).to(self.device)
        positions = np.concatenate([np.arange(len(source)) for source in sources])
        slots = []
        for job, source in zip(jobs, sources, strict=True):
            count = pages_for(len(source))
            taken = [self.pool.take() for _ in range(count)]
            job.reserved -= count
            job.rows[0].encoder_pages = np.asarray(taken, np.int32)
            slots.append(slots_of(job.rows[0].encoder_pages, 0, len(source)))
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            states = self.model.body(tokens, torch.from_numpy(positions).to(self.device), groups)
            self.model.body.write_encoder_keys(
                states, self.pages, torch.from_numpy(np.concatenate(slots)).to(self.device)
            )

    def _speculate(self, drafter: Drafter) -> None:
        """Propose speculated tokens for all sequences in decoding."""
        jobs = []
        counts = []
        for job in self.running:
            if not isinstance(job, SampleJob) or job.rows[0].waiting != 1:
                continue
            count = min(self.guesses, job.max_guesses)
            length = len(job.rows[0].tokens)
            # a speculated token that is rejected must not have switched the rotary scaling of the
            # sequence
            if count and not length <= self.switch < length + count:
                self._grow(job, job.rows[0], len(job.rows[0].tokens) + count)
                jobs.append(job)
                counts.append(count)
        for job, tokens in zip(jobs, drafter.propose(jobs, counts), strict=True):
            job.guess(tokens)

    def _grow(self, job: Job, row: Row, tokens: int) -> None:
        had = row.n_pages
        row.grow(self.pool, tokens)
        job.reserved -= row.n_pages - had

    def _plan(self) -> "_Plan":
        """Plan the next step: all sequences in decoding, and prompt chunks in the order of
        admission, up to the budget but at least one.
        """
        plan = _Plan()
        prefilling = []
        for job in self.running:
            for row in job.rows:
                row.rotate_again(self.switch)
                if row.waiting and row.computed >= len(job.context) - 1:
                    self._extend(plan, job, row, len(row.tokens))
                elif row.waiting:
                    prefilling.append((job, row))
        budget = self.step_tokens
        for job, row in prefilling:
            done = row.computed
            while done < len(row.tokens):
                end = min(len(row.tokens), (done // CHUNK + 1) * CHUNK)
                is_first = budget == self.step_tokens
                if end - done > budget and not is_first:
                    break
                self._extend(plan, job, row, end, done)
                budget -= end - done
                done = end
        return plan

    def _extend(
        self, plan: "_Plan", job: Job, row: Row, end: int, begin: int | None = None
    ) -> None:
        """Add the tokens begin .. end of a row to the plan; begin: None for all waiting tokens."""
        begin = row.computed if begin is None else begin
        self._grow(job, row, end)
        wanted = range(max(begin, row.logits_from), end)
        plan.add(job, row, begin, end, wanted)

    def _run(self, plan: "_Plan") -> Tensor:
        """Return the logits (M, V) of the wanted tokens, in the order of the plan."""
        tokens, positions = plan.tokens()
        encoder = None
        if not self.is_decoder:
            sources = [
                Span(span.offset, span.new, len(job.request.prompt), row.encoder_pages)
                for span, job, row in zip(plan.spans, plan.jobs, plan.rows, strict=True)
            ]
            encoder = PagedKeys(self.pages, sources)
        step = Step(
            PagedKeys.of_spans(self.pages, plan.spans),
            encoder,
            torch.from_numpy(plan.lengths()).to(self.device),
        )
        hidden = self.model.body.step_states(
            torch.from_numpy(tokens).to(self.device),
            torch.from_numpy(positions).to(self.device),
            step,
            torch.tensor(plan.wanted, dtype=torch.int64, device=self.device),
        )
        return self.model.logits(hidden).float()

    def _deliver(self, plan: "_Plan", logits: Tensor) -> list[Delta]:
        """Distribute the logits to the jobs, and advance each."""
        parts: dict[int, list[Tensor]] = {}
        at = 0
        for job, row, span, wanted in zip(
            plan.jobs, plan.rows, plan.spans, plan.n_wanted, strict=True
        ):
            # speculated tokens may be rejected, and are recomputed then
            row.computed = span.keys - job.n_unverified
            if wanted:
                parts.setdefault(id(row), []).append(logits[at : at + wanted])
            at += wanted
        deltas = []
        samples: list[SampleJob] = []
        last: list[Tensor] = []
        for job in plan.distinct_jobs():
            self._update_cache(job)
            found = [torch.cat(parts[id(row)]) for row in job.rows if id(row) in parts]
            if len(found) < len(job.rows):
                continue
            if not isinstance(job, SampleJob) or job.n_unverified:
                deltas.append(self._advance(job, found))
            elif job.is_ready(found[0]):
                samples.append(job)
                last.append(found[0][-1])
        if samples:
            allowed = [job.allowed for job in samples]
            chosen = choose(torch.stack(last), [job.chooser for job in samples], allowed)
            for sample, choice in zip(samples, chosen, strict=True):
                if isinstance(choice, LangueError):
                    deltas.append(sample.finish("error", choice))
                else:
                    deltas.append(sample.accept(choice))
        for job in plan.distinct_jobs():
            if job.answer.finish_reason is not None:
                self._remove(job)
        return deltas

    def _advance(self, job: Job, logits: Sequence[Tensor]) -> Delta:
        """Advance a job; an error ends only this job."""
        try:
            return job.advance(self.pool, logits)
        except LangueError as error:
            return job.finish("error", error)

    def _update_cache(self, job: Job) -> None:
        """Register computed prompt chunks in the prefix cache, and free pages outside of the
        attention window.
        """
        if self._shares:
            self._register_chunks(job, job.rows[0])
        if self.window:
            for row in job.rows:
                row.free_outside_window(self.pool, self.window)
            job.reserve_again(self.pool, job.rows)

    def _register_chunks(self, job: Job, row: Row) -> None:
        pages = CHUNK // PAGE
        for index in range(job.n_kept, min(row.computed // CHUNK, len(job.keys))):
            self.pool.keep(job.keys[index], row.table[index * pages : (index + 1) * pages].tolist())
            job.n_kept = index + 1


class _Plan:
    """The tokens that one step computes."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.rows: list[Row] = []
        self.spans: list[Span] = []
        self.wanted: list[int] = []  # indices of the step's tokens whose logits are needed
        self.n_wanted: list[int] = []  # their number in each span
        self.size = 0

    def add(self, job: Job, row: Row, begin: int, end: int, wanted: range) -> None:
        self.jobs.append(job)
        self.rows.append(row)
        self.spans.append(Span(self.size, end - begin, end, row.table))
        self.wanted += [self.size + position - begin for position in wanted]
        self.n_wanted.append(len(wanted))
        self.size += end - begin

    def tokens(self) -> tuple[np.ndarray, np.ndarray]:
        """Return token ids and positions, (T,) each."""
        tokens: list[int] = []
        positions = []
        for row, span in zip(self.rows, self.spans, strict=True):
            begin = span.keys - span.new
            tokens += row.tokens[begin : span.keys]
            positions.append(np.arange(begin, span.keys))
        return np.asarray(tokens, np.int64), np.concatenate(positions)

    def lengths(self) -> np.ndarray:
        """Return the length (T,) of each token's sequence, as far as it is known."""
        sizes = [span.new for span in self.spans]
        return np.repeat([len(row.tokens) for row in self.rows], sizes)

    def distinct_jobs(self) -> Iterable[Job]:
        return {job.id: job for job in self.jobs}.values()


def _largest_window(config: ModelConfig) -> int:
    """Return the largest attention window of all layers; 0 if a layer has full attention."""
    windows = [config.window(layer) for layer in range(config.n_layers)]
    return max(windows) if all(windows) else 0
