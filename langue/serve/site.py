"""The web page: takes a path; returns the page's files and the reports of runs, with content
security policies that only allow the page's own scripts, and nothing from other sites.
"""

import secrets
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.staticfiles import StaticFiles

from langue.errors import RunError
from langue.files import unreadable
from langue.serve.api_errors import ApiError
from langue.serve.guard import PAGE, REPORTS
from langue.serve.state import state_of

FILES = Path(__file__).parent / "page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'"
    " data:; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A report is one file that contains its styles and pictures. It may come from an untrusted folder,
# so it is sandboxed, with an origin of its own and without scripts.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'self'; sandbox"
)


def add_site(app: FastAPI) -> None:
    """Add the page and the reports to an application."""

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return _strict(Response((FILES / "index.html").read_bytes(), media_type="text/html"))

    @app.get(REPORTS + "{ticket}", include_in_schema=False)
    async def report(ticket: str, request: Request) -> Response:
        given = ticket.encode()
        for named in state_of(request).shelf.named.values():
            file = named.use.report
            if file is not None and secrets.compare_digest(given, named.use.ticket.encode()):
                return _strict(_read(file), REPORT_POLICY)
        raise ApiError(404, "There is no such report", code="unknown_url")

    app.mount(PAGE.rstrip("/"), _Files(directory=FILES), name="page")


class _Files(StaticFiles):
    """The static files of the page."""

    async def get_response(self, path: str, scope: Any) -> Response:
        return _strict(await super().get_response(path, scope))


def _strict(response: Response, policy: str = POLICY) -> Response:
    response.headers["content-security-policy"] = policy
    response.headers["referrer-policy"] = "no-referrer"
    # always revalidated, because files of two versions do not work together
    response.headers["cache-control"] = "no-cache"
    return response


def _read(file: Path) -> Response:
    try:
        return Response(file.read_bytes(), media_type="text/html")
    except OSError as error:
        raise unreadable(error, str(file), RunError) from error
