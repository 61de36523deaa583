"""The rating page: takes a ballot; serves it as a web page on this machine until all pairs are
judged.

The page listens on loopback only and needs no network. The data that it gets contains positions and
texts, but no system names. Requests from other sites, or under another host name, are rejected,
since their Origin or Host differs.
"""

import json
import secrets
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

from langue.errors import LangueError, RunError
from langue.runs.rating import Ballot

HOST = "127.0.0.1"
MOST = 10_000  # maximum size of a request, in bytes
PATIENCE = 1.0  # seconds after the last vote in which the page can still learn that it was the last


class RatingServer(ThreadingHTTPServer):
    """HTTP server for one ballot; port: 0 for any free one."""

    daemon_threads = True

    def __init__(self, ballot: Ballot, port: int = 0) -> None:
        self.ballot = ballot
        self.lock = threading.Lock()
        self.failure: LangueError | None = None
        self.page = resources.files("langue.runs").joinpath("rating.html").read_text("utf-8")
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise RunError(
                f"port {port} cannot be had: {error.strerror}", do="choose another --port"
            ) from None
        self.hosts = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_port}/"

    def state(self) -> dict[str, Any]:
        """Return what the page shows."""
        ballot = self.ballot
        pair = ballot.current
        found: dict[str, Any] = {
            "place": ballot.place,
            "total": ballot.total,
            "finished": pair is None,
        }
        if pair is not None:
            left, right = pair.texts
            found |= {"question": pair.item.question, "left": left, "right": right}
        return found

    def stop_soon(self) -> None:
        threading.Timer(PATIENCE, self._stop).start()

    def _stop(self) -> None:
        """Stop the server, unless the rater has gone back."""
        if self.failure is not None or self.ballot.current is None:
            self.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: RatingServer
    server_version = "langue"
    sys_version = ""

    def do_GET(self) -> None:  # noqa: N802
        if not self._is_ours():
            return
        if self.path == "/":
            nonce = secrets.token_urlsafe(16)
            page = self.server.page.replace("NONCE", nonce)
            policy = (
                f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}';"
                " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            )
            self._send(200, "text/html; charset=utf-8", page, policy)
        elif self.path == "/next":
            with self.server.lock:
                self._send_json(self.server.state())
        else:
            self._send(404, "text/plain", "there is no such page")

    def do_POST(self) -> None:  # noqa: N802
        if not self._is_ours():
            return
        actions = {"/vote": self._vote, "/back": self._back}
        action = actions.get(self.path)
        if action is None:
            self._send(404, "text/plain", "there is no such page")
            return
        body = self._body()
        if body is None:
            self._send(400, "text/plain", "not a vote")
            return
        with self.server.lock:
            try:
                action(body)
            except LangueError as error:  # e.g. the disk is full
                self.server.failure = error
                self._send(500, "text/plain", "not kept")
                self.server.stop_soon()
                return
            self._send_json(self.server.state())
            if self.server.ballot.current is None:
                self.server.stop_soon()

    def _vote(self, body: dict[str, Any]) -> None:
        self.server.ballot.vote(body.get("place", -1), body.get("vote", ""))

    def _back(self, _: dict[str, Any]) -> None:
        self.server.ballot.back()

    def _body(self) -> dict[str, Any] | None:
        """Return the posted JSON object; None if the body is none."""
        length = self.headers.get("Content-Length", "")
        plain = self.headers.get("Content-Type", "").split(";")[0].strip()
        if not length.isdecimal() or int(length) > MOST or plain != "application/json":
            return None
        try:
            found = json.loads(self.rfile.read(int(length)))
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def _is_ours(self) -> bool:
        """Return whether the request comes from the page itself; otherwise reject it."""
        hosts = self.server.hosts
        origin = self.headers.get("Origin")
        allowed = {f"http://{host}" for host in hosts}
        if self.headers.get("Host") in hosts and (origin is None or origin in allowed):
            return True
        self._send(403, "text/plain", "not from here")
        return False

    def _send_json(self, content: dict[str, Any]) -> None:
        self._send(200, "application/json", json.dumps(content))

    def _send(self, code: int, kind: str, content: str, policy: str = "") -> None:
        data = content.encode("utf-8", "replace")
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", policy or "default-src 'none'")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Log nothing, to keep the terminal readable."""


def serve(ballot: Ballot, port: int, ready: Callable[[str], None]) -> bool:
    """Serve a ballot until all pairs are judged (True) or Ctrl-C (False); ready: called with the
    page's address.
    """
    with RatingServer(ballot, port) as server:
        ready(server.address)
        if ballot.current is None:
            return True
        try:
            server.serve_forever(poll_interval=0.1)
        except KeyboardInterrupt:
            return False
        if server.failure is not None:
            raise server.failure
        return True
