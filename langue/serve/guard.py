"""Access control in front of all routes: takes every call; passes on those that are allowed, with
their body read, and logs one line for each.

A web page in a browser on this machine can reach loopback. So the Host header must be one of the
server's names (against DNS rebinding), an Origin must be the server's own or allowed, and the body
must be JSON (which browsers do not send to other origins without asking).
"""

import asyncio
import contextlib
import hmac
import ipaddress
import json
import re
import secrets
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from langue.serve.api_errors import ApiError, busy
from langue.serve.keys import Keys
from langue.serve.metrics import Metrics
from langue.serve.sse import DONE, EVENTS, event

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_SECONDS = 30.0  # time limit for receiving a body
FAREWELL = 5.0  # time limit for telling clients that their calls are aborted
MOST_CALLERS = 10_000  # number of callers whose rates are tracked
MOST_NAME = 128  # maximum length of a client's request id
OPEN = ("/live",)  # answered without a key, like the files of the page, which contain no data
PAGE = "/page/"
REPORTS = "/report/"  # run reports, whose links contain a secret that only callers with a key get
READS = ("/v1/", "/tokenize", "/detokenize")  # prefixes of routes that read bodies,
MODELS = "/v1/models"  # except these, which are not posted to
GONE = 499  # unofficial HTTP status: the client disconnected before the answer
ENDING = "server_ending"  # error code of calls that are refused while the server shuts down
_ID = re.compile(rf"[A-Za-z0-9._:-]{{1,{MOST_NAME}}}")


@dataclass(frozen=True)
class Limits:
    """The limits of a server; 0: no limit."""

    body: int = 8_000_000  # bytes of a request
    concurrent: int = 256  # calls at a time
    rate: int = 0  # calls per minute and key
    tokens: int = 4096  # generated tokens per answer
    seconds: float = 600.0  # time limit for a call
    prompts: int = 256  # prompts, texts or answers per call


@dataclass(frozen=True)
class Doors:
    """Who may call the server, and under which names."""

    keys: Keys = field(default_factory=Keys)
    # accepted Host headers, in addition to IP addresses
    names: frozenset[str] = frozenset({"localhost"})
    origins: frozenset[str] = frozenset()  # other web origins that may call (CORS)


class Guard:
    """ASGI middleware around all routes."""

    def __init__(
        self,
        app: App,
        doors: Doors,
        limits: Limits,
        metrics: Metrics,
        is_ending: Callable[[], bool] = lambda: False,
    ) -> None:
        """is_ending: returns whether the server is shutting down and refuses new calls."""
        self.app = app
        self.doors = doors
        self.limits = limits
        self.metrics = metrics
        self.is_ending = is_ending
        self.running: Counter[str] = Counter()  # number of running calls by owner
        self._rates = _Rates(limits.rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a call, or pass it on to the routes."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        call = _Call(scope, send, self.is_ending)
        try:
            await self._answer(call, receive)
        except asyncio.CancelledError:  # the server shuts down and does not wait any longer
            await call.break_off()
        finally:
            if call.is_counted:
                self.running -= Counter({call.owner: 1})  # drops zero counts
            call.log(self.metrics)

    async def _answer(self, call: "_Call", receive: Receive) -> None:
        try:
            self._check(call)
            body = await self._body(call, receive)
        except ApiError as error:
            await call.refuse(error)
            return
        call.scope.setdefault("state", {})["call"] = call
        await self.app(call.scope, _replayed(body, receive), call.send)

    def _check(self, call: "_Call") -> None:
        headers = call.headers
        host = headers.get("host", "")
        if not _is_ours(host, self.doors.names):
            what = f"The Host header {host[:100]!r} is not a host name of this server"
            raise ApiError(403, what, code="host_not_allowed")
        origin = headers.get("origin")
        own = f"{call.scope.get('scheme', 'http')}://{host}"
        if origin is not None and origin != own and origin not in self.doors.origins:
            what = f"Pages from {origin[:100]!r} may not call this server"
            raise ApiError(403, what, code="origin_not_allowed")
        is_preflight = call.method == "OPTIONS" and "access-control-request-method" in headers
        if not is_preflight and not _is_open(call.path, call.method):
            self._identify(call)
        if call.method != "POST":
            return
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        is_read = call.path.startswith(READS) and not call.path.startswith(MODELS)
        if kind != "application/json" and is_read:
            raise ApiError(415, "Send JSON, with Content-Type: application/json")
        if self.is_ending():
            raise _ending()
        self._check_places(call.owner)
        wait = self._rates.wait(call.owner)
        if wait:
            raise busy(f"More than {self.limits.rate} requests per minute; try again", wait)
        self.running[call.owner] += 1
        call.is_counted = True

    def _check_places(self, owner: str) -> None:
        """Raise ApiError if no slot is free for another call.

        If there are several keys, one key may use at most as many slots as stay free for the
        others.
        """
        most = self.limits.concurrent
        free = most - self.running.total()
        if not most:
            return
        if free <= 0:
            raise busy(f"{most} requests are being answered already; try again", 1)
        own = self.running[owner]
        if len(self.doors.keys) > 1 and own >= free:
            what = f"This key has {own} of {most} concurrent requests"
            raise busy(f"{what}, and the other {free} are for other keys; try again", 1)

    def _identify(self, call: "_Call") -> None:
        """Identify the caller by its API key."""
        keys = self.doors.keys
        if not keys:
            return
        kind, _, key = call.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not key.strip():
            what = 'No API key was given; send "Authorization: Bearer KEY"'
            raise ApiError(
                401, what, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"}
            )
        owner = keys.owner(key.strip())
        if owner is None:
            what = "The API key is unknown"
            raise ApiError(
                401, what, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"}
            )
        call.owner = owner

    async def _body(self, call: "_Call", receive: Receive) -> bytes:
        """Read the whole body before any work is done for the call."""
        if call.method not in ("POST", "PUT", "PATCH"):
            return b""
        most = self.limits.body
        declared = call.headers.get("content-length", "0")
        if most and declared.isdecimal() and int(declared[:20]) > most:
            raise _too_large(most)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await _read(receive, most)
        except TimeoutError:
            what = f"The request body was not complete within {BODY_SECONDS:g} seconds"
            raise ApiError(408, what) from None


class _Call:
    """One call, and what is logged about it."""

    def __init__(self, scope: Scope, send: Send, is_ending: Callable[[], bool]) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        given = self.headers.get("x-request-id", "")
        self.id = given if _ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        self.owner = ""  # identifies the key; "" if there are no keys
        self.model: str | None = None
        self.prompt_tokens: int | None = None
        self.new_tokens: int | None = None
        self.status = 0
        self.is_counted = False  # whether it counts as a running call
        self.is_answered = False  # whether the response is complete
        self.is_stream = False  # whether the response is a stream of events
        self.is_broken_off = False  # aborted because of the shutdown
        self._is_ending = is_ending
        self._send = send
        self._began = time.monotonic()

    async def send(self, message: Message) -> None:
        """Send a message of the response, with the request id in its headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = dict(message.get("headers", ()))
            self.is_stream = headers.get(b"content-type", b"").startswith(EVENTS.encode())
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self.id.encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
            if self._is_ending() and b"connection" not in headers:
                message["headers"].append((b"connection", b"close"))
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.is_answered = True

    async def refuse(self, error: ApiError) -> None:
        """Respond with an error, without waiting for the rest of the body."""
        body = json.dumps(error.body()).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            **error.headers,
        }
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        start = {"type": "http.response.start", "status": error.status, "headers": raw}
        await self.send(start)
        await self.send({"type": "http.response.body", "body": body})

    async def break_off(self) -> None:
        """Respond with an error, or end a stream that has started with one."""
        self.is_broken_off = not self.is_answered
        with contextlib.suppress(TimeoutError):  # a client that does not read cannot be told
            async with asyncio.timeout(FAREWELL / 2):
                if not self.status:
                    await self.refuse(_ending())
                elif self.is_stream and not self.is_answered:
                    body = (event(_ending().body()) + DONE).encode()
                    await self.send({"type": "http.response.body", "body": body})

    def log(self, metrics: Metrics) -> None:
        """Log a line of JSON to stderr, without any content of the call."""
        seconds = time.monotonic() - self._began
        route = getattr(self.scope.get("route"), "path", "other")
        is_gone = not self.is_answered or self.status == GONE
        status = "gone" if is_gone else str(self.status)
        metrics.count("langue_requests_total", route=route, status=status)
        metrics.observe("langue_request_seconds", seconds, route=route)
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request": self.id,
            "method": self.method[:16],
            # the secret in the rest of the path opens a report
            "path": REPORTS if self.path.startswith(REPORTS) else self.path[:200],
            "status": self.status,
            "seconds": round(seconds, 4),
        }
        if is_gone:
            line["client"] = "gone"
        if self.is_broken_off:
            line["error"] = ENDING
        for name, value in (
            ("key", self.owner or None),
            ("model", self.model),
            ("prompt_tokens", self.prompt_tokens),
            ("new_tokens", self.new_tokens),
        ):
            if value is not None:
                line[name] = value
        print(json.dumps(line), file=sys.stderr, flush=True)


Call = _Call


class _Rates:
    """Token buckets that limit the calls per minute: each caller has a bucket of one minute's
    calls, which refills steadily.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        # remaining calls, and the time of that count
        self._left: dict[str, tuple[float, float]] = {}

    def wait(self, owner: str) -> float:
        """Return the seconds until the next call is allowed; 0: it is allowed, and counted."""
        if not self.rate:
            return 0.0
        now = time.monotonic()
        left, then = self._left.get(owner, (float(self.rate), now))
        left = min(float(self.rate), left + (now - then) * self.rate / 60)
        if len(self._left) > MOST_CALLERS:
            self._left.clear()
        if left < 1:
            self._left[owner] = (left, now)
            return (1 - left) * 60 / self.rate
        self._left[owner] = (left - 1, now)
        return 0.0


def names_of(host: str, more: Any = ()) -> frozenset[str]:
    """Return the names by which a server at this address may be called."""
    own = {"localhost", host.lower(), *(name.lower() for name in more)}
    if host in ("0.0.0.0", "::", ""):
        own.add(socket.gethostname().lower())
    return frozenset(own)


def is_loopback(host: str) -> bool:
    """Return whether the address is only reachable from this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_ours(host: str, names: frozenset[str]) -> bool:
    """Return whether a Host header is one of the names, or an IP address, which no DNS server can
    redirect.
    """
    bare = host.strip().lower()
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    else:
        bare = bare.rpartition(":")[0] if bare.count(":") == 1 else bare
    if any(hmac.compare_digest(bare.encode(), name.encode()) for name in names):
        return True
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        return False
    return True


def _is_open(path: str, method: str) -> bool:
    is_page = path == "/" or path.startswith((PAGE, REPORTS))
    return path in OPEN or is_page and method in ("GET", "HEAD")


async def _read(receive: Receive, most: int) -> bytes:
    parts = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(400, "The body ended before it was whole")
        parts += message.get("body", b"")
        if most and len(parts) > most:
            raise _too_large(most)
        if not message.get("more_body"):
            return bytes(parts)


def _ending() -> ApiError:
    again = {"Retry-After": f"{FAREWELL:g}"}
    what = "The server is shutting down; try again later, or another server"
    return ApiError(503, what, code=ENDING, headers=again)


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"The request body has more than {most:,} bytes", code="request_too_large")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a receive function that first delivers the body that was read."""
    is_given = False

    async def next_message() -> Mapping[str, Any]:
        nonlocal is_given
        if not is_given:
            is_given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return next_message  # type: ignore[return-value]
