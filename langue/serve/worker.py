"""What arrives: requests and texts of many calls. What leaves: what a model makes of them, on the
event loop of the calls.

One thread owns a model: it steps its engine, and between steps puts texts that are waiting through
the model together. Nobody else touches the model, so that nothing of it needs a lock.
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

MOST_TEXTS = 256  # that go through a model together
LEAST_SHARE = 512  # tokens
HUNG = 60.0  # seconds of one step after which something is wrong
Sink = Callable[[Delta, Completion | None], None]  # called on the event loop


@dataclass
class _Writing:
    """A request at the engine."""

    sink: Sink
    model: str
    began: float
    last: float | None = None  # when its last token came


@dataclass(eq=False)
class _Texts:
    """Texts of one call."""

    key: Any  # calls that have the same one may go together
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
        """make_engine: of a model that writes; called anew where an engine breaks. context: tokens
        of a prompt and its answer, 0 for as many as the engine takes.
        """
        self.name = name
        self.metrics = metrics
        self.engine = make_engine() if make_engine is not None else None
        self.room = 0 if self.engine is None else self.engine.room
        # what an answer may have that says nothing of its length: others are to fit beside
        self.share = 0 if self.engine is None else max(LEAST_SHARE, self.engine.capacity // 8)
        if context:  # the last token that is written has no position
            self.room = min(self.room, context + 1)
        self._make_engine = make_engine
        self._loop = loop
        self._condition = threading.Condition()
        self._commands: deque[Callable[[], None]] = deque()
        self._texts: list[_Texts] = []  # in the order in which they came
        self._turns = Turns()  # by texts
        self._writing: dict[int, _Writing] = {}
        self._is_closed = False
        self._step_began: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"model {name}", daemon=True)
        self._thread.start()

    # --- on the event loop ---

    @property
    def is_alive(self) -> bool:
        """Whether its thread lives."""
        return self._thread.is_alive()

    @property
    def is_well(self) -> bool:
        """Whether its thread lives and moves."""
        began = self._step_began
        return self.is_alive and (began is None or time.monotonic() - began < HUNG)

    async def put(self, request: Request, constraint: Constraint | None, sink: Sink) -> int:
        """Queue a request; its number. ModelError where it can never be answered."""
        future: asyncio.Future[int] = self._loop.create_future()
        queued: list[int] = []

        def command() -> None:
            assert self.engine is not None
            try:
                id = self.engine.put(request, constraint)
            except LangueError as error:
                self._tell(_fail, future, error)
                return
            queued.append(id)
            self._writing[id] = _Writing(sink, self.name, time.monotonic())
            self.metrics.count("langue_prompt_tokens_total", len(request.prompt), model=self.name)
            self._tell(_resolve, future, id)

        self._add(command)
        try:
            return await future
        except asyncio.CancelledError:  # who asked has gone, and does not know the number
            self._add(lambda: self._cancel(queued))
            raise

    def cancel(self, id: int) -> None:
        """Take a request out."""
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
        """What a function makes of each item; items of calls that have the same key go together.
        Owners take turns.
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
        """End the thread, once what it is at is done."""
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
        except Exception as error:  # a defect, of which each caller is told; a new engine begins
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
            self._tell(_deliver, told)

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
        """Tell all that the engine failed, and make a new one."""
        said = " ".join(str(error).split())[:200]
        failure = EngineError(f"the engine failed ({type(error).__name__}: {said})")
        told = []
        for id, writing in self._writing.items():
            completion = Completion(finish_reason="error", error=failure)
            delta = Delta(id, finish_reason="error", error=failure)
            told.append((writing.sink, delta, completion))
        self._writing.clear()
        self._tell(_deliver, told)
        self.engine = None  # what it holds is given back first
        assert self._make_engine is not None
        self.engine = self._make_engine()

    def _next_texts(self) -> list[_Texts]:
        """Of the owner who has had least, what waits longest; and others whose texts may go along,
        in the same order.
        """
        present = [each for each in self._texts if not each.future.done()]  # others have gone
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
        """Put texts through the model. Where they fail together, each call fails or succeeds by
        itself.
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
            self._tell(_fail, chosen[0].future, _as_ours(error))
            return
        at = 0
        for each in chosen:
            own = found[at : at + len(each.items)]
            at += len(each.items)
            self._tell(_resolve, each.future, own)

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have a function called on the event loop; where that is over, nobody waits any more."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)


class EngineError(ModelError):
    """A defect, and nothing that the caller can mend."""


def _as_ours(error: Exception) -> LangueError:
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
    """The same request and its constraint, as another one of several answers."""
    fork = None if constraint is None else constraint.fork()
    return replace(request, sample=sample), fork
