"""What arrives: chat templates of others, with conversations. What leaves: their texts, from a
process of its own (langue/child.py), so that none takes more time or memory than it is given.
"""

import json
import threading
from collections.abc import Callable
from typing import Any

from langue.child import Child, Gone, NotStarted
from langue.errors import DataError, LangueError, ModelError
from langue.text.tokenizers.chat import Messages, render

SECONDS = 2.0  # in which a conversation is rendered, or refused
MEMORY = 512 << 20  # bytes
_ERRORS: dict[str, type[LangueError]] = {"data": DataError, "model": ModelError}


class TooSlow(ModelError):
    """A template that computes without end."""


class Templates:
    """Renders conversations as `render` does, within bounds. Threads may share it."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._child = Child(__name__, MEMORY)
        self._lock = threading.Lock()

    def render(
        self, template: str | None, messages: Messages, *, where: str = "", **how: Any
    ) -> str:
        """As `render`; TooSlow where that takes longer, ModelError where too much memory."""
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
    """What answers conversations with their texts, or with what is wrong."""
    render("{{ messages[0].content }}", [{"role": "user", "content": ""}], tokens={})  # imports

    def answer(asked: bytes) -> bytes:
        template, messages, how = json.loads(asked)
        try:
            found = {"text": render(template, messages, **how)}
        except (DataError, ModelError) as error:
            kind = "data" if isinstance(error, DataError) else "model"
            found = {"kind": kind, "what": error.what, "where": error.where, "do": error.do}
        return json.dumps(found).encode()

    return answer
