"""The common course of calls that generate text: takes a call; returns its answer, complete or as a
stream, and releases the model however the call ends.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any, Protocol

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from langue.serve.models import Loaded
from langue.serve.sse import EventStream
from langue.serve.state import state_of
from langue.serve.writing import Answers, until_gone

STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}


class Written(Protocol):
    """The work of one call, as each route implements it."""

    async def start(self) -> None:
        """Queue the call; raise ApiError if it cannot be answered."""

    async def whole(self) -> dict[str, Any]:
        """Return the complete answer."""

    def events(self) -> AsyncIterator[str]:
        """Yield the answer as server-sent events."""


async def answer(
    fields: Any,
    request: Request,
    make: Callable[[Any, Loaded, Answers], Written],
    *,
    done: bool = True,
) -> Response:
    """Run the work that `make` creates for the fields, and respond with the whole answer or a
    stream.

    done: as in `EventStream`.
    """
    state = state_of(request)
    call = request.state.call
    call.model = fields.model
    stack = AsyncExitStack()
    try:
        loaded = await stack.enter_async_context(state.shelf.use(fields.model))
        answers = Answers(loaded, call, state.limits)
        stack.callback(answers.cancel)
        written = make(fields, loaded, answers)
        await until_gone(request.receive, written.start())
        if fields.stream:
            return EventStream(written.events(), stack, done)
        body = await until_gone(request.receive, written.whole())
    except BaseException:
        await stack.aclose()
        raise
    await stack.aclose()
    return JSONResponse(body)
