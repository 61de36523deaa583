"""Generation for calls: takes prompts and options; returns the generated texts of all answers of a
call as they arrive, and cancels them if the client is gone.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langue.errors import LangueError, PromptTooLong
from langue.generation.request import Completion, Delta, Request
from langue.generation.sample import Sampling
from langue.serve.api_errors import FORMS, ApiError, of_langue, too_long
from langue.serve.guard import GONE, Call, Limits
from langue.serve.models import Loaded
from langue.serve.worker import EngineError, of_sample


@dataclass
class Piece:
    """What one step adds to an answer of a call."""

    index: int
    delta: Delta
    completion: Completion | None  # set once the answer has ended


@dataclass
class Asked:
    """The prompts of one call, with the options of their answers."""

    prompts: Sequence[Any]  # texts, token ids or conversations
    options: dict[str, Any]
    n: int = 1
    seed: int | None = None
    max_tokens: int | None = None  # None: as many as fit, up to the server's limit
    param: str = "messages"  # name of the field with the prompts
    limit_param: str = "max_tokens"  # name of the field with max_tokens
    form_param: str | None = None  # name of the field with the constraint on the text
    # max_tokens=None means the limit of the model's generation config
    as_configured: bool = False
    encode: Callable[[Any], Any] = lambda prompt: prompt  # runs on a thread of its own


class Answers:
    """The answers of one call."""

    def __init__(self, loaded: Loaded, call: Call, limits: Limits) -> None:
        self.loaded = loaded
        self.call = call
        self.limits = limits
        self.prompts: list[list[int]] = []  # the token ids of each prompt
        # the sampling settings in effect, once the first prompt is prepared
        self.sampling = Sampling()
        self.cached_tokens = 0
        self.new_tokens = 0
        self._queue: asyncio.Queue[Piece] = asyncio.Queue()
        self._ids: dict[int, int] = {}  # index of an answer -> request id
        self._left = 0

    @property
    def usage(self) -> dict[str, Any]:
        """The token counts in OpenAI's format."""
        prompt = sum(len(each) for each in self.prompts)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.new_tokens,
            "total_tokens": prompt + self.new_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens, "audio_tokens": 0},
        }

    async def start(self, asked: Asked) -> None:
        """Queue all answers; if one of them can never be answered, cancel all and raise
        ApiError.
        """
        count = len(asked.prompts) * asked.n
        if count > self.limits.prompts:
            what = (
                f"{count} answers are requested, and the limit is {self.limits.prompts} per request"
            )
            raise ApiError(400, what, param="n" if asked.n > 1 else asked.param)
        seconds = self.limits.seconds
        deadline = time.monotonic() + seconds if seconds else None
        seed = secrets.randbits(62) if asked.seed is None else asked.seed % 2**63
        try:
            for prompt in asked.prompts:
                request, constraint = await asyncio.to_thread(self._prepare, asked, prompt, seed)
                placed = replace(request, owner=self.call.owner, deadline=deadline)
                self.prompts.append(list(request.prompt))
                self.sampling = request.sampling
                for sample in range(asked.n):
                    index = self._left
                    each, fork = of_sample(placed, constraint, sample)
                    self._ids[index] = await self.loaded.worker.put(each, fork, self._sink(index))
                    self._left += 1
        except LangueError as error:
            self.cancel()
            raise _as_api(error, asked.param, asked.form_param) from error
        except BaseException:
            self.cancel()
            raise
        self.call.prompt_tokens = sum(len(each) for each in self.prompts)

    def _prepare(self, asked: Asked, prompt: Any, seed: int) -> tuple[Request, Any]:
        """Encode a prompt and compile its constraint; runs on a thread of its own."""
        engine = self.loaded.worker.engine
        if engine is None:
            raise EngineError("the engine is being made anew", do="try again")
        options = {**asked.options, "seed": seed}
        if isinstance(prompt, str):
            self.loaded.check_size(prompt, asked.param)
        with self.loaded.lock:
            request = engine.prepare(asked.encode(prompt), **options)
        given = len(request.prompt) if self.loaded.model.config.architecture == "decoder" else 1
        room = self.loaded.worker.room - given
        limit = asked.max_tokens
        most = self.limits.tokens or room
        if limit is None:
            limit = min(room, most, self.loaded.worker.share)
            if asked.as_configured:
                limit = min(limit, request.config.new_tokens(given))
        if limit > most:
            what = f"{asked.limit_param} = {limit:,} is above this server's limit of {most:,}"
            raise ApiError(400, what, param=asked.limit_param, code="invalid_value")
        if room < 1 or limit > room:
            asked_for = asked.max_tokens or 0
            raise too_long(given, asked_for, self.loaded.worker.room - 1, asked.param)
        sampling = replace(
            request.sampling,
            max_tokens=limit,
            min_tokens=min(request.sampling.min_tokens, limit)
            if asked.options.get("min_tokens") is None
            else request.sampling.min_tokens,
        )
        request = replace(request, sampling=sampling, as_text=True)
        return request, engine.constraint(request, **options)

    def _sink(self, index: int) -> Any:
        def take(delta: Delta, completion: Completion | None) -> None:
            self._queue.put_nowait(Piece(index, delta, completion))

        return take

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield the pieces of all answers until they have ended; raise ApiError if one fails."""
        try:
            while self._left:
                piece = await self._queue.get()
                if piece.completion is not None:
                    self._end(piece.index, piece.completion)
                yield piece
        finally:
            self.cancel()
            self.call.new_tokens = self.new_tokens

    def _end(self, index: int, completion: Completion) -> None:
        self._left -= 1
        self._ids.pop(index, None)
        self.new_tokens += len(completion.tokens)
        self.cached_tokens += completion.cached_tokens
        if completion.error is not None:
            raise _as_api(completion.error, None)
        if completion.finish_reason == "deadline":
            what = f"The answer was not complete within {self.limits.seconds:g} seconds"
            raise ApiError(504, what, code="deadline_exceeded")

    async def whole(self) -> list[Completion]:
        """Return all answers once the last one has ended."""
        found: dict[int, Completion] = {}
        async for piece in self.pieces():
            if piece.completion is not None:
                found[piece.index] = piece.completion
        return [found[index] for index in sorted(found)]

    def cancel(self) -> None:
        """Cancel the answers that have not ended."""
        for id in self._ids.values():
            self.loaded.worker.cancel(id)
        self._ids.clear()


def _as_api(error: LangueError, param: str | None, form_param: str | None = None) -> ApiError:
    if isinstance(error, EngineError):
        return ApiError(500, str(error), code="engine_error")
    if isinstance(error, PromptTooLong):
        return too_long(error.tokens, 0, error.room, param or "prompt")
    made = of_langue(error, param)
    if made.param in FORMS and form_param is not None:
        made.param = form_param
    return made


async def until_gone(receive: Any, work: Any) -> Any:
    """Return the result of a coroutine, and cancel it if the client disconnects, which Starlette
    only notices for streams.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ApiError(GONE, "The client has gone")
    finally:
        for each in (task, gone):
            if not each.done():
                each.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await each


async def _gone(receive: Any) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
