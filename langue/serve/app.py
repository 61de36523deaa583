"""The ASGI application: takes models and limits; returns an application with all routes, behind its
guard.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from langue import __version__
from langue.errors import LangueError
from langue.runtime import give_freed_memory, share_heaps
from langue.serve import (
    chat,
    completions,
    decisions,
    embeddings,
    responses,
    tasks,
    tokenizing,
)
from langue.serve.api_errors import ApiError, ErrorBody, of_langue, of_validation
from langue.serve.guard import App, Doors, Guard
from langue.serve.metrics import CONTENT_TYPE
from langue.serve.models import Named, Shelf
from langue.serve.site import add_site
from langue.serve.state import State, state_of

# replaces FastAPI's own error schema in the OpenAPI description
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "The call cannot be answered as it is."},
    "5XX": {"model": ErrorBody, "description": "The server cannot answer it now."},
}
TRIM = 10.0  # seconds between returns of freed memory to the system


def make_app(state: State, doors: Doors) -> App:
    """Return the whole server except for its socket."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            await state.shelf.load_first()
        except ApiError as error:  # the server reports it in one line
            state.failure = error
        upkeep = [asyncio.create_task(state.shelf.unload_idle()), asyncio.create_task(_trim())]
        try:
            yield
        finally:
            for task in upkeep:
                task.cancel()
            await state.shelf.close()

    # FastAPI's documentation pages are off, since they load scripts from other sites
    app = FastAPI(
        title="langue", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.serve = state
    for routes in (chat, completions, responses, embeddings, tasks, decisions, tokenizing):
        app.include_router(routes.router, responses=ERRORS)
    _add_errors(app)
    _add_server_routes(app)
    add_site(app)
    _describe_models(app, state)
    inner: Any = app
    if doors.origins:
        from starlette.middleware.cors import CORSMiddleware

        inner = CORSMiddleware(
            app,
            allow_origins=sorted(doors.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-request-id"],
            expose_headers=["x-request-id", "retry-after"],
        )
    return Guard(inner, doors, state.limits, state.metrics, lambda: state.is_ending)


async def _trim() -> None:
    """Regularly return memory that large calls have freed to the system."""
    while share_heaps():
        await asyncio.sleep(TRIM)
        await asyncio.to_thread(give_freed_memory)


def _add_errors(app: FastAPI) -> None:
    """Answer every error in OpenAI's format."""

    def answer(error: ApiError) -> JSONResponse:
        return JSONResponse(error.body(), error.status, error.headers)

    @app.exception_handler(ApiError)
    async def of_api(request: Request, error: ApiError) -> Response:
        return answer(error)

    @app.exception_handler(LangueError)
    async def of_ours(request: Request, error: LangueError) -> Response:
        return answer(of_langue(error))

    @app.exception_handler(RequestValidationError)
    async def of_fields(request: Request, error: RequestValidationError) -> Response:
        return answer(of_validation(error.errors()))

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        where = f"{request.method} {request.url.path[:200]}"
        said = {404: f"There is no {where}", 405: f"{where} is not allowed"}
        status = error.status_code
        code = "unknown_url" if status == 404 else None
        made = ApiError(status, said.get(status, str(error.detail)), code=code)
        made.headers.update(error.headers or {})
        return answer(made)

    @app.exception_handler(Exception)
    async def of_defects(request: Request, error: Exception) -> Response:
        what = "The server failed; its log has more under the request's id"
        return answer(ApiError(500, what, code="internal_error"))


def _add_server_routes(app: FastAPI) -> None:
    """Add the routes about the server itself."""

    @app.get("/v1/models", responses=ERRORS)
    async def models(request: Request) -> dict[str, Any]:
        """List the models that can be used."""
        shelf = state_of(request).shelf
        found = [_as_model(each, shelf) for each in shelf.named.values()]
        return {"object": "list", "data": found}

    @app.get("/v1/models/{id:path}", responses=ERRORS)
    async def model(id: str, request: Request) -> dict[str, Any]:
        """Describe one model."""
        shelf = state_of(request).shelf
        return _as_model(shelf.find(id), shelf)

    @app.get("/live")
    async def live() -> dict[str, str]:
        """Return 200 while the server runs; needs no key."""
        return {"status": "ok"}

    @app.get("/health", responses=ERRORS)
    async def health(request: Request) -> Response:
        """Return 200 if no model hangs in a step, else 503."""
        shelf = state_of(request).shelf
        models = {each.id: each.worker.is_well for each in shelf.loaded.values()}
        is_well = all(models.values())
        shown = {name: "ok" if well else "hung" for name, well in models.items()}
        status = {"status": "ok" if is_well else "hung", "models": shown}
        return JSONResponse(status, 200 if is_well else 503)

    @app.get("/ready", responses=ERRORS)
    async def ready(request: Request) -> Response:
        """Return 200 while new calls are accepted, else 503."""
        is_ending = state_of(request).is_ending
        status = {"status": "ending" if is_ending else "ready"}
        return JSONResponse(status, 503 if is_ending else 200)

    @app.get("/metrics", responses=ERRORS, response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """Return the metrics in Prometheus' format."""
        state = state_of(request)
        _update_gauges(state)
        return PlainTextResponse(state.metrics.text(), media_type=CONTENT_TYPE)


def _describe_models(app: FastAPI, state: State) -> None:
    """List the available models in the OpenAPI description."""
    make = app.openapi

    def describe() -> dict[str, Any]:
        made = make()
        names = list(state.shelf.named)
        for schema in made["components"]["schemas"].values():
            field = schema.get("properties", {}).get("model")
            if field is not None:
                field["enum"] = names
        (id,) = made["paths"]["/v1/models/{id}"]["get"]["parameters"]
        id["schema"]["enum"] = names
        return made

    app.openapi = describe  # type: ignore[method-assign]


def _update_gauges(state: State) -> None:
    for each in state.shelf.loaded.values():
        engine = each.worker.engine
        if engine is None:
            continue
        load = engine.load
        gauges = {
            "langue_requests_waiting": load.waiting,
            "langue_requests_running": load.running,
            "langue_cache_use_ratio": load.used,
            "langue_cache_known_ratio": load.known,
        }
        for name, value in gauges.items():
            state.metrics.set(name, value, model=each.id)


def _as_model(named: Named, shelf: Shelf) -> dict[str, Any]:
    return {
        "id": named.id,
        "object": "model",
        "created": named.created,
        "owned_by": "langue",
        "max_model_len": named.config.max_length,
        "loaded": named.id in shelf.loaded,
        **named.use.told(),
    }
