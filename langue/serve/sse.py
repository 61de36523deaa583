"""What arrives: the parts of an answer, as they come. What leaves: server-sent events, as OpenAI's
clients read them.
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
    """One event."""
    head = f"event: {name}\n" if name is not None else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n"


class EventStream(StreamingResponse):
    """A stream of events, whose source is ended where the client goes."""

    media_type = EVENTS

    def __init__(
        self, events: AsyncIterator[str], stack: AsyncExitStack, done: bool = True
    ) -> None:
        """stack: closed in the end, also where nobody reads to it. done: whether an error, too, is
        followed by the mark of an end.
        """
        self._events = events
        self._stack = stack
        # proxies are not to wait for more
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(_told(events, done), headers=headers)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()  # type: ignore[attr-defined]
            await self._stack.aclose()


async def _told(events: AsyncIterator[str], done: bool) -> AsyncIterator[str]:
    """The events, and the error that ends them where there is one: the status is sent already."""
    try:
        async for each in events:
            yield each
    except ApiError as error:
        yield event(error.body())
        if done:
            yield DONE
