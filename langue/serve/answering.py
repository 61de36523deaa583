"""What arrives: a call that a model writes an answer to. What leaves: the answer, whole or as a
stream; and the model let go of, however it ends.
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
    """What a route makes of a call."""

    async def start(self) -> None:
        """Queue it. ApiError where it cannot be answered."""

    async def whole(self) -> dict[str, Any]:
        """The answer."""

    def events(self) -> AsyncIterator[str]:
        """The answer, as it comes."""


async def answer(
    fields: Any,
    request: Request,
    make: Callable[[Any, Loaded, Answers], Written],
    *,
    done: bool = True,
) -> Response:
    """What `make` gives for the fields, whole or as a stream. done: as in `EventStream`."""
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
