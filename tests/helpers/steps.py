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

# the newest drawing: an outdated one stays on the page until the script has run to its end
_CHART = """
const chart = (key) => document.querySelector(
  `.st-key-${key}:not([data-stale=true]) .js-plotly-plot`);
"""
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


def traces_now(page, key: str) -> dict[str, dict]:
    """The named traces of a chart: coordinates, ids and texts. Waits for the chart, and reads it
    once, at that moment: it may be redrawn in the next (``until`` waits for a condition)."""
    found = page.wait_for_function(
        f"""key => {{ {_CHART}
          return chart(key)?._fullLayout && chart(key)._fullData?.map(t => ({{
            name: t.name, x: Array.from(t.x ?? []), y: Array.from(t.y ?? []),
            ids: Array.from(t.customdata ?? []), text: t.text}})) }}""",
        arg=key,
    ).json_value()
    return {trace["name"]: trace for trace in found if trace["name"]}


def until(page, key: str, condition: str, arg: Any = None) -> None:
    """Wait until JavaScript ``condition`` holds of the chart's figure ``fig``: its traces by name
    in ``fig.named``, its layout in ``fig.layout``; ``arg`` is what is passed. A trace that is not
    there yet is no error."""
    page.wait_for_function(
        f"""([key, arg]) => {{ {_CHART}
          const drawn = chart(key);
          if (!drawn?._fullData) return false;
          const named = Object.fromEntries(drawn._fullData.map(t => [t.name, t]));
          const fig = {{named, layout: drawn.layout}};
          try {{ return !!({condition}) }} catch (error) {{ return false }} }}""",
        arg=[key, arg],
    )


def click_mark(page, key: str, ident: str) -> None:
    """Click the point or bar of a chart that carries ``ident``, as a mouse does. It is clicked
    again only if the chart has not heard the click."""
    until(page, key, "drawn._fullData.some(t => t.customdata?.includes(arg))", ident)
    heard = "ident => window.clickedMarks?.includes(ident)"

    def click() -> None:
        at_rest(page)
        _listen(page, key)
        x, y = _place_at_rest(page, key, ident)
        page.mouse.move(x + 2, y + 2)
        page.mouse.move(x, y)  # plotly picks what the mouse hovers over
        try:
            page.wait_for_function(
                f"""([key, ident]) => {{ {_CHART}
                  return chart(key)?._hoverdata?.some(p => p.customdata === ident) }}""",
                arg=[key, ident],
                timeout=10_000,
            )
        except PlaywrightTimeout:
            return  # it has moved away
        page.mouse.click(x, y)

    repeat(page, click, lambda: page.evaluate(heard, ident))


def _listen(page, key: str) -> None:
    """Note in the window which marks of a chart are clicked from now on."""
    page.wait_for_function(
        f"""key => {{ {_CHART}
          const drawn = chart(key);
          if (!drawn?.on) return false;
          window.clickedMarks = [];
          drawn.once('plotly_click', event =>
            window.clickedMarks.push(...event.points.map(p => p.customdata)));
          return true }}""",
        arg=key,
    )


def _place_at_rest(page, key: str, ident: str) -> list[float]:
    """Where a point lies, in pixels of the window, once it has been scrolled to the middle and
    stands still: what comes above the chart may still push it down."""
    places: list[list[float]] = []

    def still() -> bool:
        places.append(_place_now(page, key, ident))
        return len(places) > 4 and all(place == places[-1] for place in places[-4:])

    _, y = _place_now(page, key, ident)
    page.evaluate(
        "by => document.querySelector('[data-testid=stMain]').scrollBy(0, by - innerHeight / 2)", y
    )
    poll(page, still)
    return places[-1]


def _place_now(page, key: str, ident: str) -> list[float]:
    """Where a point or the middle of a bar lies in the window at this moment, in pixels; a chart
    that is being redrawn is awaited."""
    found = page.wait_for_function(
        f"""([key, ident]) => {{ {_CHART}
          const drawn = chart(key);
          if (!drawn?._fullData) return null;
          const box = drawn.getBoundingClientRect();
          for (const t of drawn._fullData) {{
            const at = (t.customdata ?? []).indexOf(ident);
            if (at < 0) continue;
            if (t.type === 'bar') {{
              const bars = [...drawn.querySelectorAll('.barlayer .trace')];
              const of_trace = bars.filter(b => b.__data__?.[0]?.trace?.index === t.index)[0];
              const bar = of_trace?.querySelectorAll('.point path')[at]?.getBoundingClientRect();
              return bar ? [bar.left + bar.width / 2, bar.top + bar.height / 2] : null;
            }}
            const [x, y] = [t.xaxis, t.yaxis].map(
              name => drawn._fullLayout[name[0] + "axis" + name.slice(1)]);
            return [box.left + x._offset + x.d2p(t.x[at]), box.top + y._offset + y.d2p(t.y[at])];
          }}
          return null }}""",
        arg=[key, ident],
    )
    return found.json_value()


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
