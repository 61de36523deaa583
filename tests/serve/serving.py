"""A server as a process of its own, on a free port of loopback."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests import forked

CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for call in m.tool_calls or [] %}"
    "<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}{% endfor %}"
    "{% if tools %}<tools>{{ tools | tojson }}{% endif %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


class Server:
    """A running server."""

    def __init__(self, process: forked.Piped, address: str) -> None:
        self.process = process
        self.address = address
        self.said: list[str] = []  # what it wrote to stderr
        self.http = httpx.Client(base_url=address, timeout=60)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            self.said.append(line)

    def openai(self, **options: Any) -> Any:
        """The client that people use, which checks all that it is sent."""
        import openai

        given = {"api_key": "none", "max_retries": 0, "_strict_response_validation": True}
        return openai.OpenAI(base_url=f"{self.address}/v1", **given | options)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Tell it to end; its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(60)
        self._reader.join(10)
        return code


def _serve(before: str, words: list[str]) -> None:
    exec(before, {})
    forked.command(words)


@contextlib.contextmanager
def serving(*words: Any, before: str = "", **variables: str) -> Iterator[Server]:
    """`langue serve` with these words, until the block ends. before: statements that are run first,
    as those that make limits short.
    """
    # what a training of these tests has set of its own process is none of the server's
    environment = {k: v for k, v in os.environ.items() if not k.endswith("CACHE_CAPACITY")}
    command = ["serve", *map(str, words), "--port", "0"]
    process = forked.Piped(_serve, before, command, environment=environment | variables)
    try:
        line = process.stdout.readline()
        assert line.startswith("langue serves at "), process.stderr.read()
        server = Server(process, line.split()[-1])
        yield server
        server.http.close()
    finally:
        process.kill()


def with_template(folder: Path, template: str = CHAT) -> Path:
    (folder / "chat_template.jinja").write_text(template, "utf-8")
    return folder
