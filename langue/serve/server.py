"""What arrives: the words of `langue serve`. What leaves: a server, until it is told to end."""

import importlib.util
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.errors import SettingsError
from langue.runtime import SERVING_KERNELS, keep_kernels, share_heaps

NEEDED = ("fastapi", "uvicorn")
DRAIN = 60  # seconds in which calls are answered to the end, once the server is told to end


def serve(
    runs: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    memory: str | None = None,
    weights: str | None = None,
    api_keys: str | Path | None = None,
    idle: float = 600.0,
    names: Sequence[str] = (),
    cors: Sequence[str] = (),
    drain: int = DRAIN,
    limits: Mapping[str, Any] | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve runs, folders and models of the Hub over HTTP, until SIGINT or SIGTERM; calls that came
    before are then answered to the end, for at most `drain` seconds.

    memory: such as "8GB", of weights, keys and values; None: most of what is free. weights: what
    matrices are held in, as `langue.load` has it. api_keys: a file of keys, one a line, beside
    those of LANGUE_API_KEYS; without any, only loopback is served. names: more names that the
    server is called by (the Host header); cors: origins of pages that may call. limits: by the
    names of `Limits`. ready: is called with the address once calls are taken. LangueError where a
    run or a setting cannot be used.
    """
    need(NEEDED, "serve")
    share_heaps()
    keep_kernels(SERVING_KERNELS)
    from langue.serve.guard import Doors, is_loopback, names_of
    from langue.serve.keys import VARIABLE, read_keys
    from langue.serve.state import state_for

    keys = read_keys(api_keys)
    if not keys and not is_loopback(host):
        raise SettingsError(
            f"--host {host} is reached from other machines, and there is no API key",
            do=f"give --api-keys FILE or {VARIABLE}, or leave out --host",
        )
    listening = _listen(host, port)
    try:
        state = state_for(runs, memory, weights, idle, limits)
        doors = Doors(keys, names_of(host, names), frozenset(cors))
        _run(state, doors, listening, drain, ready)
    finally:
        listening.close()


def need(packages: Sequence[str], extra: str) -> None:
    """SettingsError where a package is not installed that an extra of langue brings."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"serving needs {' and '.join(missing)}", do=f"pip install 'langue[{extra}]'"
        )


def _listen(host: str, port: int) -> socket.socket:
    """A socket that takes calls. SettingsError where the address cannot be had."""
    bare = host.strip("[]")
    try:
        found = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError, OverflowError):
        raise SettingsError(
            f"--host {host} is no address", do="give one, or leave it out"
        ) from None
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise SettingsError(
            f"{host}:{port} cannot be served from: {error.strerror}",
            do="give another --port, or end what serves there",
        ) from error
    return listening


def _run(
    state: Any,
    doors: Any,
    listening: socket.socket,
    drain: int,
    ready: Callable[[str], None] | None,
) -> None:
    from langue.serve.app import make_app
    from langue.serve.uvicorn_server import Server

    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host

    def tell() -> None:
        if ready is not None:
            ready(f"http://{shown}:{port}")

    server = Server(make_app(state, doors), state, listening, drain, tell)
    # uvicorn raises the signal that ended it once more, when all is done
    before = {each: signal.signal(each, _ignore) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[listening])
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    if state.failure is not None:
        raise state.failure.__cause__ or SettingsError(state.failure.message)
    if not server.started:
        raise SettingsError("the server could not start", do="see what is said above")


def _ignore(number: int, frame: Any) -> None:
    """The server has ended by it already."""
