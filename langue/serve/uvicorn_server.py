"""What arrives: an application and a socket that listens. What leaves: calls, taken and answered by
uvicorn, until a signal; then each call that came is answered to the end, or told why not.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from langue.serve.guard import FAREWELL, App
from langue.serve.state import State

SILENT = 30  # seconds in which the first call of a connection must have begun
LINGER = 0.5  # seconds in which a call is refused that was on its way when the server was to end


class Server(uvicorn.Server):
    """Tells when it is ready, and the routes when it is to end."""

    def __init__(
        self,
        app: App,
        state: State,
        listening: socket.socket,
        drain: int,
        ready: Callable[[], None],
    ) -> None:
        """drain: seconds in which calls are answered to the end; what is left is broken off."""
        self.state = state
        self.listening = listening
        self.drain = drain
        self.ready = ready
        config = uvicorn.Config(
            app,
            lifespan="on",
            log_level="warning",
            # its own would close the handlers of all other loggers of this process
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=drain + int(FAREWELL),
            timeout_keep_alive=30,
            h11_max_incomplete_event_size=64 * 1024,
            http=Protocol,
            loop="asyncio",
            ws="none",
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load what is served, and listen."""
        await super().startup(sockets)
        if self.state.failure is not None:
            self.should_exit = True
        elif self.started:
            self.ready()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Take a signal to end."""
        self.state.is_ending = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen no more, and end when all calls have."""
        asyncio.get_running_loop().call_later(self.drain, self._break_off)
        await self._take_last()
        await super().shutdown(sockets)

    async def _take_last(self) -> None:
        """Take who is connected already, and would be cut in silence; then listen no more."""
        last = []
        with contextlib.suppress(BlockingIOError):
            while True:
                last.append(self.listening.accept()[0])
        for each in self.servers:
            each.close()
        for connection in last:
            connection.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Protocol(self.config, self.server_state, self.lifespan.state), connection
            )

    def _break_off(self) -> None:
        for task in list(self.server_state.tasks):
            task.cancel()


class Protocol(H11Protocol):
    """Closes connections on which no call comes, or only a part of one."""

    _is_ending = False

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a call."""
        super().connection_made(transport)
        self._silence = self.loop.call_later(SILENT, self._close_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        """Keep nothing of it."""
        self._silence.cancel()  # it would hold all of the connection until then
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # of one that was reset, too

    def on_response_complete(self) -> None:
        """Wait for the next call."""
        super().on_response_complete()
        if self._is_ending:
            self.loop.call_later(LINGER, self._close_if_idle)

    def shutdown(self) -> None:
        """Close, when a call that may be on its way has been refused."""
        self._is_ending = True
        self.loop.call_later(LINGER, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def _close_if_silent(self) -> None:
        if self.cycle is None:
            self.transport.close()
