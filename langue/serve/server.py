"""The server of `langue serve`: takes its options; serves until it is told to stop."""

import importlib.util
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.errors import SettingsError
from langue.runtime import SERVING_KERNELS, keep_kernels, share_heaps

NEEDED = ("fastapi", "uvicorn")
DRAIN = 60  # seconds in which open calls are completed after a signal to stop


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
    """Serve runs, folders and Hub models over HTTP, until SIGINT or SIGTERM; earlier calls are then
    completed, for at most `drain` seconds.

    memory: such as "8GB", for weights and KV caches; None: most of the free memory. weights: the
    format in which weight matrices are held, as in `langue.load`. api_keys: a file with one key per
    line, in addition to those of LANGUE_API_KEYS; without any, only loopback is served. names:
    additional accepted Host headers. cors: origins of web pages that may call. limits: by the names
    of `Limits`. ready: called with the address once calls are accepted. Raises LangueError if a run
    or a setting cannot be used.
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
    """Raise SettingsError if a package of an extra of langue is not installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"serving needs {' and '.join(missing)}", do=f"pip install 'langue[{extra}]'"
        )


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raise SettingsError if the address is not available."""
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
    # uvicorn raises the signal that stopped it again after it has finished
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
    """Ignore a signal: the server has already stopped because of it."""
