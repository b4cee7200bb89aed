"""``python -m benchmarks.pages``: how long a visitor waits, in a real browser.

For each of ``--starts`` a server is started afresh; from the moment it answers, the time until the
first page shows its heading, its controls and its first chart, and until it is whole (torch must
not be loaded by then: the process is asked what it has mapped). The page itself keeps these times,
frame by frame: a driver outside would be told late. Beside them, the same for the smallest page
that Streamlit can serve with one chart, which no app can be quicker than. Then ``--rounds`` through
all pages by the navigation, on the measurement of the embedded model, and as many moves of the τ
slider.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.server import ROOT, server

APP = ROOT / "app" / "main.py"
CHARTS = {"Model": 0, "Heads": 4, "Activations": 5, "Prune": 1, "Compare": 0, "Sweeps": 0}
"""Pages in the order of the navigation, and the charts that each draws."""
TAU = "τ, nats (natural log)"
WINDOW = {"width": 1280, "height": 720}
Times = dict[str, list[float]]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

_WHOLE = """
([title, charts]) => document.querySelector('h1')?.innerText === title
  && document.querySelectorAll('[data-stale=false] .js-plotly-plot .main-svg:first-child').length
     >= charts
  && document.querySelector('[data-testid=stApp][data-test-script-state=notRunning]')
"""

_KEEP_TIMES = """
(() => {
  const shown = window.shownAt = {};
  const note = (name, there) => { if (there && !shown[name]) shown[name] = Date.now() / 1000 };
  const visible = (at) => [...document.querySelectorAll(at)]
    .filter(e => e.checkVisibility({checkVisibilityCSS: true})).length;
  const look = () => {
    const charts = visible('.js-plotly-plot .main-svg:first-child');
    note('heading', visible('h1'));
    note('chart', charts);
    note('picture', charts && visible('h1') && visible('[data-testid=stSlider] input') >= SLIDERS);
    note('whole', charts >= CHARTS);
    requestAnimationFrame(look);
  };
  look();
})()
"""
_SMALLEST = """
import plotly.graph_objects as go
import streamlit as st

st.title("One chart")
st.plotly_chart(go.Figure(go.Scatter(y=[1, 3, 2])))
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser of this machine; prints, at the end, how busy the machine was."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise SystemExit("No Chromium is installed; this benchmark drives a real browser.")
    before = os.getloadavg()[0]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
    print(
        f"\nLoad of the machine: {before:.1f} before, {os.getloadavg()[0]:.1f} after, "
        f"on {os.cpu_count()} cores."
    )


def has_torch(process_id: int) -> bool:
    """Whether the process has torch's libraries mapped."""
    return "libtorch" in Path(f"/proc/{process_id}/maps").read_text()


def first_visit(page: Page, address: str, up: float, sliders: int, charts: int) -> dict[str, float]:
    """Seconds from ``up`` until the page showed its heading, its first chart, its first picture
    (heading, ``sliders`` controls and a chart) and all ``charts``."""
    page.add_init_script(
        _KEEP_TIMES.replace("SLIDERS", str(sliders)).replace("CHARTS", str(charts))
    )
    page.goto(address)
    page.wait_for_function("window.shownAt.picture && window.shownAt.whole")
    return {name: at - up for name, at in page.evaluate("window.shownAt").items()}


def switch(page: Page, name: str) -> float:
    """Seconds from the click on a page's link until the page is whole."""
    link = page.get_by_role("link", name=name, exact=True).first
    link.hover()
    started = time.perf_counter()
    link.click()
    page.wait_for_function(_WHOLE, arg=[name, CHARTS[name]])
    return time.perf_counter() - started


def move_tau(page: Page) -> float:
    """Seconds from a key press on the slider until every chart shows the new τ."""
    slider = page.get_by_role("slider", name=TAU)
    slider.focus()
    before = slider.get_attribute("aria-valuetext")
    started = time.perf_counter()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        """was => { const sheet = document.querySelector(
             '.st-key-heads-sheet[data-stale=false] [aria-label]')?.getAttribute('aria-label');
           return sheet && !sheet.includes(`at ${was} nats`) }""",
        arg=before,
    )
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
    return time.perf_counter() - started


def row(name: str, times: list[float], limit: str) -> str:
    return (
        f"| {name} | {statistics.median(times):.2f} | {max(times):.2f} | {limit} | {len(times)} |"
    )


def first_pages(browser: Browser, script: Path, starts: int, sliders: int, charts: int) -> Times:
    """:func:`first_visit` of fresh servers by fresh browser profiles."""
    times: Times = {}
    for _ in range(starts):
        page = browser.new_page(viewport=WINDOW)
        page.goto("about:blank")
        with server(script) as (address, process_id, up):
            for name, seconds in first_visit(page, address, up, sliders, charts).items():
                times.setdefault(name, []).append(seconds)
            if has_torch(process_id):
                raise SystemExit("The first page has loaded torch.")
        page.close()
    return times


def looking_around(browser: Browser, rounds: int) -> tuple[Times, list[float]]:
    """Seconds of switches to each page, and of moves of τ."""
    times: Times = {name: [] for name in CHARTS}
    page = browser.new_page(viewport=WINDOW)
    page.set_default_timeout(300_000)
    with server() as (address, process_id, _):
        page.goto(address)
        page.wait_for_function(_WHOLE, arg=["Heads", CHARTS["Heads"]])
        for _ in range(rounds):
            for name in CHARTS:
                times[name].append(switch(page, name))
        switch(page, "Heads")
        moves = [move_tau(page) for _ in range(rounds)]
        if has_torch(process_id):
            raise SystemExit("Looking at pages has loaded torch.")
    page.close()
    return times, moves


def measure(starts: int, rounds: int, browser: Browser) -> list[str]:
    """Rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        smallest = Path(folder, "smallest.py")
        smallest.write_text(_SMALLEST)
        floor = first_pages(browser, smallest, starts, sliders=0, charts=1)
    first = first_pages(browser, APP, starts, sliders=3, charts=CHARTS["Heads"])
    times, moves = looking_around(browser, rounds)
    return [
        row("heading, new server", first["heading"], ""),
        row("first picture: heading, controls, graph", first["picture"], "2"),
        row("all four charts of the first page", first["whole"], ""),
        row("smallest Streamlit page with a chart", floor["picture"], ""),
        *(row(f"switch to {name}", seconds, "1") for name, seconds in times.items()),
        row("move of τ, all four charts", moves, ""),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with chromium() as browser:
        rows = measure(options.starts, options.rounds, browser)
        print("| what | median, s | slowest, s | limit, s | times |\n|---|---|---|---|---|")
        print("\n".join(rows))


if __name__ == "__main__":
    main()
