"""A real server and a real browser; skipped with a message where no Chromium is installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import sync_playwright

from benchmarks.pages import BROWSERS
from benchmarks.server import server as fresh_server
from benchmarks.visitors import write_models
from tests.helpers import PATIENCE, ROOT, USERS_CACHE
from tests.helpers.steps import (
    at_rest,
    expect,
    open_recipe,
    query_now,
    run_to_end,
    small_recipe,
    write_recipe,
)

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Address of the app, started as a user starts it, with a home of its own."""
    home = tmp_path_factory.mktemp("home")
    environment = {
        "HOME": str(home),
        "HEADROOM_CACHE": str(USERS_CACHE),
        "HEADROOM_ROOTS": os.pathsep.join(map(str, (ROOT, tmp_path_factory.getbasetemp()))),
        "HEADROOM_PRELOAD": "0",
    }
    with fresh_server(environment=environment, log=home / "server.log") as (address, _, _):
        yield address


@pytest.fixture(scope="session")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium is installed, so nothing can be tested in a browser")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@dataclass
class Visit:
    """A tab, and what went wrong in it."""

    page: object
    address: str
    errors: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def open(self, path: str = "") -> object:
        self.page.goto(f"{self.address}/{path}")
        expect(self.page.locator("h1").first).to_be_visible()
        at_rest(self.page)
        return self.page


@contextmanager
def visitor(browser, server: str, **options) -> Iterator[Visit]:
    """A tab in a profile of its own; what went wrong in it fails the test at the end."""
    context = browser.new_context(accept_downloads=True, **options)
    context.set_default_timeout(1000 * PATIENCE)
    tab = Visit(context.new_page(), server)
    tab.page.on("console", lambda message: _note(tab, message))
    tab.page.on("pageerror", lambda error: tab.errors.append(str(error)))
    tab.page.on("request", lambda request: _note_stranger(tab, request.url))
    tab.page.on("websocket", lambda socket: _note_stranger(tab, socket.url))
    try:
        yield tab
    finally:
        context.close()
    assert not tab.errors, tab.errors
    assert not tab.strangers, tab.strangers


@pytest.fixture
def visit(browser, server):
    """Opens tabs; ``visit(color_scheme="dark")``. Each is checked for errors at the end."""
    with ExitStack() as tabs:

        def start(color_scheme: str = "light", width: int = 1280, height: int = 720) -> Visit:
            viewport = {"width": width, "height": height}
            return tabs.enter_context(
                visitor(browser, server, color_scheme=color_scheme, viewport=viewport)
            )

        yield start


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> dict[str, str]:
    """A recipe's ``model`` for runs of which only the course matters: eight small random blocks."""
    folder = tmp_path_factory.mktemp("models")
    write_models(folder, ["tiny"])
    return {"source": str(folder / "tiny")}


@pytest.fixture(scope="session")
def pruned(browser, server, tmp_path_factory) -> str:
    """A run made in the app: the address' query that finds it again."""
    recipe = small_recipe(blocks={"start": 0, "end": None})
    with visitor(browser, server, viewport={"width": 1280, "height": 720}) as tab:
        page = tab.open("prune")
        open_recipe(page, write_recipe(tmp_path_factory.mktemp("recipe"), recipe))
        page.get_by_role("button", name="Run").click()
        run_to_end(page)
        return f"job={query_now(page)['job']}"


def _note(tab: Visit, message) -> None:
    if message.type == "error":
        tab.errors.append(f"{message.text} ({message.location.get('url', '')})")


def _note_stranger(tab: Visit, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname != "127.0.0.1":
        tab.strangers.append(url)
