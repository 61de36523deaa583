"""A real browser for pages, and what axe-core finds wrong with them."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Error, expect, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
REQUIRED = "LANGUE_REQUIRE_BROWSER"
PATIENCE = 30_000  # milliseconds, of a machine that does much else


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Headless Chromium. Where there is none the tests are skipped, unless it is required."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)  # None: Playwright's own
    with sync_playwright() as tools:
        try:
            started = tools.chromium.launch(executable_path=found, args=list(QUIET))
        except Error as error:
            if found is not None or os.environ.get(REQUIRED):
                raise
            pytest.skip(f"there is no browser: {str(error).splitlines()[0]}")
        yield started
        started.close()


def open_page(browser: Any, address: str, **options: Any) -> Any:
    """A page in a profile of its own. What scripts complain of is in `page.complaints`."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda said: _note(page, said))
    page.on("dialog", lambda asked: page.complaints.append(f"dialog: {asked.message}"))
    page.goto(address)
    return page


def _note(page: Any, said: Any) -> None:
    if said.type in ("error", "warning"):
        page.complaints.append(said.text)


def violations(page: Any) -> list[str]:
    """Rules of axe-core that a page breaks, each with the elements that break it."""
    from axe_playwright_python.base import AXE_SCRIPT

    page.evaluate(AXE_SCRIPT)
    found = page.evaluate("axe.run()")["violations"]
    return [f"{rule['id']}: {node['html'][:150]}" for rule in found for node in rule["nodes"]]
