"""Where files of the page are put: served without a key, and loading nothing from elsewhere."""

import asyncio

import httpx
import pytest

from langue.serve import app as module
from langue.serve.guard import Doors, Limits
from langue.serve.keys import Keys
from langue.serve.metrics import Metrics
from langue.serve.models import Shelf
from langue.serve.state import State


def get(path, method="GET", doors=None, **headers):
    metrics = Metrics()
    state = State(Shelf([], 0, 0, metrics), Limits(), metrics)
    made = module.make_app(state, doors or Doors(Keys(["a-secret-key"])))

    async def ask():
        transport = httpx.ASGITransport(made)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(ask())


@pytest.fixture
def files(tmp_path, monkeypatch):
    (tmp_path / "index.html").write_text("<title>langue</title>", "utf-8")
    (tmp_path / "page.js").write_text("export {}", "utf-8")
    monkeypatch.setattr(module, "PAGE_FILES", tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", ["/", "/page/page.js"])
def test_files_are_open_and_strict(files, path) -> None:
    answer = get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_nothing_else_is_open_below_it(files) -> None:
    (files.parent / "secret").write_text("x", "utf-8")
    assert get("/page/../secret").status_code in (401, 404)
    assert get("/page/%2e%2e/secret").status_code == 404
    assert get("/page/page.js", "POST").status_code == 401
    assert get("/pages").status_code == 401


def test_pages_that_are_named_may_call() -> None:
    doors = Doors(Keys(["a-secret-key"]), origins=frozenset({"https://mine.example"}))
    ask = {"access-control-request-method": "POST", "origin": "https://mine.example"}
    answer = get("/v1/completions", "OPTIONS", doors, **ask)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://mine.example"
    other = {**ask, "origin": "https://other.example"}
    assert get("/v1/completions", "OPTIONS", doors, **other).status_code == 403
    key = {"authorization": "Bearer a-secret-key", "origin": "https://mine.example"}
    assert get("/v1/models", "GET", doors, **key).status_code == 200
