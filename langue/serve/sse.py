"""What arrives: the parts of an answer, as they come. What leaves: server-sent events, as OpenAI's
clients read them.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse

from langue.serve.api_errors import ApiError

DONE = "data: [DONE]\n\n"


def event(data: Any, name: str | None = None) -> str:
    """One event."""
    head = f"event: {name}\n" if name is not None else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n"


class EventStream(StreamingResponse):
    """A stream of events, whose source is ended where the client goes."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str]) -> None:
        # proxies are not to wait for more
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(_told(events), headers=headers)


async def _told(events: AsyncIterator[str]) -> AsyncIterator[str]:
    """The events, and the error that ends them where there is one: the status is sent already."""
    try:
        async for each in events:
            yield each
    except ApiError as error:
        yield event(error.body())
        yield DONE
    finally:
        await events.aclose()  # type: ignore[attr-defined]
