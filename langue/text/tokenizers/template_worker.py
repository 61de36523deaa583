"""Renders third-party chat templates in a separate process (langue/child.py), so that none uses
more time or memory than allowed.
"""

import json
import threading
from collections.abc import Callable
from typing import Any

from langue.child import Child, Gone, NotStarted
from langue.errors import DataError, LangueError, ModelError
from langue.text.tokenizers.chat import Messages, render

SECONDS = 2.0  # time limit for rendering a conversation
MEMORY = 512 << 20  # memory limit in bytes
_ERRORS: dict[str, type[LangueError]] = {"data": DataError, "model": ModelError}


class TooSlow(ModelError):
    """Raised for a template that exceeds the time limit."""


class Templates:
    """Renders conversations like `render`, with limits; thread-safe."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._child = Child(__name__, MEMORY)
        self._lock = threading.Lock()

    def render(
        self, template: str | None, messages: Messages, *, where: str = "", **how: Any
    ) -> str:
        """Do the same as `render`; raise TooSlow if it takes too long, ModelError if it needs too
        much memory.
        """
        asked = json.dumps([template, list(messages), {"where": where, **how}]).encode()
        try:
            with self._lock:
                answer = self._child.ask(asked, self._seconds)
        except Gone:
            what = "the chat template takes too much memory, or nests too deeply"
            raise ModelError(what, where=where) from None
        except NotStarted:
            raise ModelError("the process that renders chat templates does not start") from None
        if answer is None:
            what = f"the chat template takes more than {self._seconds:g} seconds"
            raise TooSlow(what, where=where, do="send a shorter conversation, or mend the template")
        found = json.loads(answer)
        if "text" not in found:
            raise _ERRORS[found["kind"]](found["what"], where=found["where"], do=found["do"])
        text: str = found["text"]
        return text

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._child.close()


def begin(message: bytes) -> Callable[[bytes], bytes]:
    """Return the function that answers a request with the rendered text or the error."""
    # loads the lazy imports
    render("{{ messages[0].content }}", [{"role": "user", "content": ""}], tokens={})

    def answer(asked: bytes) -> bytes:
        template, messages, how = json.loads(asked)
        try:
            found = {"text": render(template, messages, **how)}
        except (DataError, ModelError) as error:
            kind = "data" if isinstance(error, DataError) else "model"
            found = {"kind": kind, "what": error.what, "where": error.where, "do": error.do}
        return json.dumps(found).encode()

    return answer
