"""Server-sent events: takes the parts of an answer as they come; returns them in the form that
OpenAI's clients read.
"""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from starlette.responses import StreamingResponse

from langue.serve.api_errors import ApiError

EVENTS = "text/event-stream"
DONE = "data: [DONE]\n\n"


def event(data: Any, name: str | None = None) -> str:
    """Encode one event."""
    head = f"event: {name}\n" if name is not None else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n"


class EventStream(StreamingResponse):
    """A stream of events, whose source is closed if the client disconnects."""

    media_type = EVENTS

    def __init__(
        self, events: AsyncIterator[str], stack: AsyncExitStack, done: bool = True
    ) -> None:
        """stack: closed at the end, even if the client does not read to the end. done: whether the
        end mark is also sent after an error.
        """
        self._events = events
        self._stack = stack
        # tell proxies not to buffer
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(_with_error(events, done), headers=headers)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()  # type: ignore[attr-defined]
            await self._stack.aclose()


async def _with_error(events: AsyncIterator[str], done: bool) -> AsyncIterator[str]:
    """Yield the events; an error becomes the last event, since the status has already been sent."""
    try:
        async for each in events:
            yield each
    except ApiError as error:
        yield event(error.body())
        if done:
            yield DONE
