"""The HTTP server: takes an application and a listening socket; has uvicorn answer calls until a
signal, then completes every call that was received, or tells the client why not.
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

SILENT = 30  # time limit for the first call on a connection
LINGER = 0.5  # seconds in which calls that were already on their way at the shutdown are refused


class Server(uvicorn.Server):
    """A uvicorn server that reports when it is ready, and tells the routes when it shuts down."""

    def __init__(
        self,
        app: App,
        state: State,
        listening: socket.socket,
        drain: int,
        ready: Callable[[], None],
    ) -> None:
        """drain: seconds in which open calls are completed; the rest is aborted."""
        self.state = state
        self.listening = listening
        self.drain = drain
        self.ready = ready
        config = uvicorn.Config(
            app,
            lifespan="on",
            log_level="warning",
            # uvicorn's own would close the handlers of all other loggers in this process
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
        """Load the models, and listen."""
        await super().startup(sockets)
        if self.state.failure is not None:
            self.should_exit = True
        elif self.started:
            self.ready()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Start the shutdown on a signal."""
        self.state.is_ending = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and finish when all calls have ended."""
        asyncio.get_running_loop().call_later(self.drain, self._break_off)
        await self._take_last()
        await super().shutdown(sockets)

    async def _take_last(self) -> None:
        """Accept the connections that are already waiting, which would be dropped silently, then
        stop listening.
        """
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
    """Closes connections that send no call, or only a part of one."""

    _is_ending = False

    def connection_made(self, transport: Any) -> None:
        """Start the time limit for the first call."""
        super().connection_made(transport)
        self._silence = self.loop.call_later(SILENT, self._close_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything about the connection."""
        self._silence.cancel()  # a pending timer would keep the whole connection in memory
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # also after a connection reset

    def on_response_complete(self) -> None:
        """Wait for the next call."""
        super().on_response_complete()
        if self._is_ending:
            self.loop.call_later(LINGER, self._close_if_idle)

    def shutdown(self) -> None:
        """Close the connection after any call that may be on its way has been refused."""
        self._is_ending = True
        self.loop.call_later(LINGER, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def _close_if_silent(self) -> None:
        if self.cycle is None:
            self.transport.close()
