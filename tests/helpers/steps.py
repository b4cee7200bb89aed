"""What a visitor does in a browser and waits for, in the words of the page.

A page is redrawn at any moment, so steps and checks wait until a condition holds. The few helpers
that read a value once end in ``_now`` and say so.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from playwright.sync_api import TimeoutError as PlaywrightTimeout
from playwright.sync_api import expect

from pruning.artifacts.recipe import Recipe
from tests.helpers import PATIENCE
from tests.helpers.recipes import plain_recipe

expect.set_options(timeout=1000 * PATIENCE)


_AT_REST = """
() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'
  && !document.querySelector('[data-stale=true]')
"""


def small_recipe(**sections: Any) -> Recipe:
    """Few tokens and no copies: seconds instead of minutes."""
    small = {
        "calibration": {"samples": 2, "seq_len": 32},
        "ffn": {"ratio": 0.25},
        "recovery": {"copies": 0},
        "blocks": {"start": 3, "end": 5},
    }
    return plain_recipe().changed(**{**small, **sections})


def long_recipe() -> Recipe:
    """A run of minutes, to be cancelled."""
    return small_recipe(
        calibration={"samples": 64, "seq_len": 32}, blocks={"start": 0, "end": None}
    )


def write_recipe(folder: Path, recipe: Recipe, name: str = "small.yaml") -> str:
    path = folder / name
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    return str(path)


def at_rest(page) -> None:
    """Wait until the script has run to its end and nothing outdated is shown. What was done just
    now may not have reached the server yet: wait for what it brings about as well."""
    page.wait_for_function(_AT_REST)


def poll(page, holds: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait until ``holds()`` is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, f"it never came true: {holds()!r}"
        page.wait_for_timeout(50)  # the page goes on meanwhile
    return value


def repeat(page, act: Callable[[], Any], holds: Callable[[], Any], seconds: float = 10) -> None:
    """Do ``act`` until ``holds()``, again whenever it has not helped for a while: a redraw can
    swallow what a visitor does, who would do it again. ``act`` must bear repetition."""
    deadline = time.monotonic() + PATIENCE
    while True:
        act()
        try:
            poll(page, holds, seconds)
            return
        except AssertionError:
            assert time.monotonic() < deadline, "doing it again and again does not help"


def open_recipe(page, file: str) -> None:
    """Upload a recipe and wait until the server has taken it over: Run runs what it has."""
    upload(page, file)
    expect(page.get_by_text(f"{Path(file).name} is the recipe now.")).to_be_visible()


def upload(page, file: str) -> None:
    """Unfold the recipe's file and give the page ``file``."""
    at_rest(page)
    page.get_by_text("Recipe file", exact=True).click()
    page.set_input_files("input[type=file]", file)


def go(page, name: str) -> None:
    """Open another page by the navigation, and wait until nothing of the page before is left."""
    page.get_by_role("link", name=name, exact=True).first.click()
    expect(page.get_by_role("heading", name=name, exact=True, level=1)).to_be_visible()
    at_rest(page)


def fill(page, label: str, value: str) -> None:
    """Type into a field and leave it; a field that is redrawn meanwhile is filled again."""
    field = page.get_by_label(label, exact=True)

    def type_it() -> None:
        field.fill(value)
        field.press("Enter")
        at_rest(page)

    repeat(page, type_it, lambda: field.input_value() == value, 2)


def query_now(page) -> dict[str, str]:
    """The query of the address, read once."""
    return dict(parse_qsl(urlsplit(page.url).query))


def asks_for(page, name: str, value: str) -> None:
    """Wait until the address carries this parameter."""
    poll(page, lambda: query_now(page).get(name) == value)


def slider(page, label: str):
    return page.get_by_role("slider", name=label)


def value_now(page, label: str) -> str:
    """What a slider says, read once: it may not have caught up with the server."""
    return slider(page, label).get_attribute("aria-valuetext")


def says(page, label: str, value: str) -> None:
    """Wait until a slider says ``value``."""
    expect(slider(page, label)).to_have_attribute("aria-valuetext", value)


def press(page, label: str, key: str, times: int = 1) -> None:
    """Move a slider by the keyboard; every press has to move it."""
    for _ in range(times):
        at_rest(page)
        before = value_now(page, label)
        slider(page, label).press(key)
        expect(slider(page, label)).not_to_have_attribute("aria-valuetext", before)


def choose(page, label: str, key: str, value: str) -> None:
    """Open a list by the keyboard, press ``key`` and Enter, until the list shows ``value``."""
    box = page.get_by_role("combobox", name=label, exact=True)
    options = page.get_by_role("option")

    def select() -> None:
        at_rest(page)
        box.focus()
        if not options.count():
            page.keyboard.press("ArrowDown")
        try:
            options.first.wait_for(timeout=10_000)
        except PlaywrightTimeout:
            return  # a redraw has closed it
        page.keyboard.press(key)
        page.keyboard.press("Enter")

    repeat(page, select, lambda: not options.count() and box.input_value() == value)


def download(page, label: str, folder: Path) -> Path:
    """Press a download button and keep the file."""
    at_rest(page)
    with page.expect_download() as waiting:
        page.get_by_role("button", name=label, exact=True).click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


_PROGRESS = """
() => [...document.querySelectorAll('[role=progressbar], [role=status]')].map(
  element => element.ariaValueNow ?? element.innerText).join()
"""


def run_to_end(page) -> None:
    """Wait until the run is done, however long it takes, as long as it goes on."""
    done, seen = page.get_by_text("of the block parameters are kept"), []

    def ended_or_moved() -> bool:
        seen.append(page.evaluate(_PROGRESS))
        return done.count() > 0 or seen[-1] != seen[0]

    while not done.count():
        seen.clear()
        poll(page, ended_or_moved)
    expect(done).to_be_visible()


def decision(page):
    """The sentence of the decision feed, once it tells a decision."""
    return page.get_by_role("status").filter(has_text=re.compile(r"Block \d+ \w+: "))


def unchanged(page, locator, seconds: float = 2.5) -> str:
    """Wait until a text stays as it is for ``seconds`` (two redraws), and return it."""

    def same() -> str | None:
        before = locator.inner_text()
        page.wait_for_timeout(1000 * seconds)
        return before if locator.inner_text() == before else None

    return poll(page, same)
