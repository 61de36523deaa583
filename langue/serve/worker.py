"""The thread that owns a model: takes requests and texts of many calls; delivers the model's
results on the event loop of the calls.

The thread steps the generation engine and, between steps, runs batches of waiting texts. No other
thread touches the model, so the model needs no locks.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langue.errors import LangueError, ModelError
from langue.generation.constrain import Constraint
from langue.generation.request import Completion, Delta, Request
from langue.generation.turns import Turns
from langue.runs.generation import TextEngine
from langue.serve.metrics import Metrics

MOST_TEXTS = 256  # maximum number of texts in a batch
LEAST_SHARE = 512  # minimum default limit of new tokens
HUNG = 60.0  # duration of a step after which the model counts as hung
Sink = Callable[[Delta, Completion | None], None]  # called on the event loop


@dataclass
class _Writing:
    """A request in the engine."""

    sink: Sink
    model: str
    began: float
    last: float | None = None  # time of its last token


@dataclass(eq=False)
class _Texts:
    """Texts of one call."""

    key: Any  # calls with the same key may share a batch
    owner: str
    items: list[Any]
    function: Callable[[list[Any]], Sequence[Any]]
    future: "asyncio.Future[list[Any]]"


class Worker:
    """The thread of one model."""

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        metrics: Metrics,
        make_engine: Callable[[], TextEngine] | None = None,
        context: int = 0,
    ) -> None:
        """make_engine: for a model that generates; called again if an engine fails. context:
        maximum number of tokens of prompt and answer; 0: limited by the engine only.
        """
        self.name = name
        self.metrics = metrics
        self.engine = make_engine() if make_engine is not None else None
        self.room = 0 if self.engine is None else self.engine.room
        # default limit of new tokens, which leaves room for other calls
        self.share = 0 if self.engine is None else max(LEAST_SHARE, self.engine.capacity // 8)
        if context:  # the last generated token needs no position
            self.room = min(self.room, context + 1)
        self._make_engine = make_engine
        self._loop = loop
        self._condition = threading.Condition()
        self._commands: deque[Callable[[], None]] = deque()
        self._texts: list[_Texts] = []  # in order of arrival
        self._turns = Turns()  # counts texts
        self._writing: dict[int, _Writing] = {}
        self._is_closed = False
        self._step_began: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"model {name}", daemon=True)
        self._thread.start()

    # --- on the event loop ---

    @property
    def is_alive(self) -> bool:
        """Whether its thread is alive."""
        return self._thread.is_alive()

    @property
    def is_well(self) -> bool:
        """Whether its thread is alive and does not hang."""
        began = self._step_began
        return self.is_alive and (began is None or time.monotonic() - began < HUNG)

    async def put(self, request: Request, constraint: Constraint | None, sink: Sink) -> int:
        """Queue a request and return its id; raise ModelError if it can never be answered."""
        future: asyncio.Future[int] = self._loop.create_future()
        queued: list[int] = []

        def command() -> None:
            assert self.engine is not None
            try:
                id = self.engine.put(request, constraint)
            except LangueError as error:
                self._call_on_loop(_fail, future, error)
                return
            queued.append(id)
            self._writing[id] = _Writing(sink, self.name, time.monotonic())
            self.metrics.count("langue_prompt_tokens_total", len(request.prompt), model=self.name)
            self._call_on_loop(_resolve, future, id)

        self._add(command)
        try:
            return await future
        except asyncio.CancelledError:  # the caller is gone, and does not know the id
            self._add(lambda: self._cancel(queued))
            raise

    def cancel(self, id: int) -> None:
        """Cancel a request."""
        if self.is_alive:
            self._add(lambda: self._cancel([id]))

    def _cancel(self, ids: list[int]) -> None:
        for id in ids:
            if id in self._writing and self.engine is not None:
                self.engine.cancel(id)

    async def apply(
        self,
        key: Any,
        function: Callable[[list[Any]], Sequence[Any]],
        items: list[Any],
        owner: str = "",
    ) -> list[Any]:
        """Return a function's result for each item; items of calls with the same key share batches,
        and owners are served in turn.
        """
        if not items:
            return []
        self._check()
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        with self._condition:
            self._turns.join(owner, [each.owner for each in self._texts])
            self._texts.append(_Texts(key, owner, items, function, future))
            self._condition.notify()
        self.metrics.count("langue_texts_total", len(items), model=self.name)
        return await future

    def close(self) -> None:
        """Stop the thread after its current step."""
        with self._condition:
            self._is_closed = True
            self._condition.notify()
        self._thread.join()

    def _add(self, command: Callable[[], None]) -> None:
        self._check()
        with self._condition:
            self._commands.append(command)
            self._condition.notify()

    def _check(self) -> None:
        if not self.is_alive:
            raise EngineError("the model's thread has ended", do="ask again")

    # --- in the thread ---

    def _run(self) -> None:
        while True:
            with self._condition:
                while not (self._is_closed or self._commands or self._texts or self._has_work):
                    self._condition.wait()
                if self._is_closed:
                    return
                commands = list(self._commands)
                self._commands.clear()
                batch = self._next_texts()
            self._step_began = time.monotonic()
            for command in commands:
                command()
            if batch:
                self._apply(batch)
            if self._has_work:
                self._step_began = time.monotonic()
                self._step()
            self._step_began = None

    @property
    def _has_work(self) -> bool:
        return self.engine is not None and self.engine.has_work

    def _step(self) -> None:
        assert self.engine is not None
        now = time.monotonic()
        try:
            deltas = self.engine.step(now)
        except Exception as error:  # a bug: tell every caller, and start a new engine
            self._break(error)
            return
        told = []
        now = time.monotonic()
        for delta in deltas:
            writing = self._writing.get(delta.id)
            if writing is None:
                continue
            self._measure(writing, delta, now)
            completion = None
            if delta.finish_reason is not None:
                completion = self.engine.collect(delta.id)
                del self._writing[delta.id]
                self.metrics.count(
                    "langue_cached_tokens_total", completion.cached_tokens, model=self.name
                )
            told.append((writing.sink, delta, completion))
        if told:
            self._call_on_loop(_deliver, told)

    def _measure(self, writing: _Writing, delta: Delta, now: float) -> None:
        if not delta.tokens:
            return
        self.metrics.count("langue_generated_tokens_total", len(delta.tokens), model=self.name)
        if writing.last is None:
            name = "langue_time_to_first_token_seconds"
            self.metrics.observe(name, now - writing.began, model=self.name)
        else:
            between = (now - writing.last) / len(delta.tokens)
            name = "langue_time_between_tokens_seconds"
            self.metrics.observe(name, between, model=self.name)
        writing.last = now

    def _break(self, error: Exception) -> None:
        """Fail all requests, and create a new engine."""
        said = " ".join(str(error).split())[:200]
        failure = EngineError(f"the engine failed ({type(error).__name__}: {said})")
        told = []
        for id, writing in self._writing.items():
            completion = Completion(finish_reason="error", error=failure)
            delta = Delta(id, finish_reason="error", error=failure)
            told.append((writing.sink, delta, completion))
        self._writing.clear()
        self._call_on_loop(_deliver, told)
        self.engine = None  # release its memory before the new one is created
        assert self._make_engine is not None
        self.engine = self._make_engine()

    def _next_texts(self) -> list[_Texts]:
        """Return the next batch: the longest-waiting texts of the owner who has received the least,
        and other texts with the same key, in the same order.
        """
        # callers of the others are gone
        present = [each for each in self._texts if not each.future.done()]
        if not present:
            self._texts = []
            self._turns.clear()
            return []
        waiting = sorted(present, key=lambda each: self._turns[each.owner])
        chosen = list[_Texts]()
        count = 0
        for each in waiting:
            if each.key != waiting[0].key:
                continue
            if chosen and count + len(each.items) > MOST_TEXTS:
                break
            chosen.append(each)
            count += len(each.items)
        for each in chosen:
            self._turns.take(each.owner, len(each.items))
        self._texts = [each for each in present if each not in chosen]
        return chosen

    def _apply(self, chosen: list[_Texts]) -> None:
        """Run a batch; if it fails, run the texts of each call separately, so that each fails or
        succeeds on its own.
        """
        items = [item for each in chosen for item in each.items]
        self.metrics.observe("langue_batch_texts", len(items), model=self.name)
        try:
            found = list(chosen[0].function(items))
        except Exception as error:
            if len(chosen) > 1:
                for each in chosen:
                    self._apply([each])
                return
            self._call_on_loop(_fail, chosen[0].future, _as_langue_error(error))
            return
        at = 0
        for each in chosen:
            own = found[at : at + len(each.items)]
            at += len(each.items)
            self._call_on_loop(_resolve, each.future, own)

    def _call_on_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function on the event loop; if that is closed, nobody is waiting any more."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)


class EngineError(ModelError):
    """A bug in langue, which the caller cannot fix."""


def _as_langue_error(error: Exception) -> LangueError:
    if isinstance(error, LangueError):
        return error
    said = " ".join(str(error).split())[:200]
    return EngineError(f"the model failed ({type(error).__name__}: {said})")


def _deliver(told: list[tuple[Sink, Delta, Completion | None]]) -> None:
    for sink, delta, completion in told:
        sink(delta, completion)


def _resolve(future: "asyncio.Future[Any]", value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def of_sample(request: Request, constraint: Constraint | None, sample: int) -> Any:
    """Return a copy of a request and its constraint, for another of several answers."""
    fork = None if constraint is None else constraint.fork()
    return replace(request, sample=sample), fork
