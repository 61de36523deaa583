"""The files of the page: served without a key, loading nothing from elsewhere."""

import asyncio
import re
from typing import get_args

import httpx
import pytest

from langue.files import sha256
from langue.serve import app as module
from langue.serve import site
from langue.serve.guard import Doors, Limits
from langue.serve.keys import Keys
from langue.serve.metrics import Metrics
from langue.serve.models import Shelf
from langue.serve.state import State
from langue.serve.uses import CONTINUATION
from langue.tasks import TASKS
from langue.tasks.task import Result


def get(path, method="GET", doors=None, **headers):
    metrics = Metrics()
    state = State(Shelf([], 0, 0, metrics), Limits(), metrics)
    made = module.make_app(state, doors or Doors(Keys(["a-secret-key"])))

    async def ask():
        transport = httpx.ASGITransport(made)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(ask())


# of the one script that is not ours, streaming-markdown 0.2.15, as npm has it; and its licence
VENDORED = {
    "smd.min.js": "20c0a39e6ec48b99e2f505f8488d2342fb3000d03523a7ced6cd94c14b15e8c5",
    "smd.LICENSE": "35f9d60ce9f83fba5a4eaceedf6994e133d7dc9d50ab9098b909eb23564ebabb",
}


def test_what_is_not_ours_is_as_it_was_published() -> None:
    vendored = {file.name: sha256(file) for file in (site.FILES / "vendor").iterdir()}
    assert vendored == VENDORED


def test_nothing_is_named_that_is_not_here() -> None:
    """No address of the web, and no file that is missing."""
    for file in site.FILES.iterdir():
        if file.suffix in (".js", ".html", ".css"):
            text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
            assert not re.findall(r"https?://|innerHTML|insertAdjacentHTML", text), file
            named = re.findall(r'(?:from|src=|href=) ?"(?:\./|page/)([^"]+)"', text)
            assert all((site.FILES / each).is_file() for each in named), file


def test_every_result_has_a_view() -> None:
    results = set(get_args(Result))
    assert {task.result for task in TASKS.values()} <= results
    views = re.search(
        r"const VIEWS = \{(.*?)\n\};", (site.FILES / "main.js").read_text("utf-8"), re.S
    )
    assert views is not None
    assert set(re.findall(r"^  (\w+): \[\[", views.group(1), re.M)) == results | {CONTINUATION}


@pytest.fixture
def files(tmp_path, monkeypatch):
    (tmp_path / "index.html").write_text("<title>langue</title>", "utf-8")
    (tmp_path / "page.js").write_text("export {}", "utf-8")
    monkeypatch.setattr(site, "FILES", tmp_path)
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
