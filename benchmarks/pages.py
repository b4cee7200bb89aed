"""``python -m benchmarks.pages``: how long a visitor waits, in a real browser.

For each of ``--starts`` a server is started afresh; from the moment it answers, the time until the
first page has its first picture and until the page is whole (torch must not be loaded by then: the
process is asked what it has mapped). Then, with the last server, ``--rounds`` through all pages by
the navigation, on the measurement of the embedded model, and as many moves of the τ slider.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
CHARTS = {"Model": 0, "Heads": 4, "Activations": 5, "Prune": 1, "Compare": 0, "Sweeps": 0}
"""Pages in the order of the navigation, and the charts that each draws."""
TAU = "τ, nats (natural log)"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

_WHOLE = """
([title, charts]) => document.querySelector('h1')?.innerText === title
  && document.querySelectorAll('[data-stale=false] .js-plotly-plot .main-svg:first-child').length
     >= charts
  && document.querySelector('[data-testid=stApp][data-test-script-state=notRunning]')
"""


@contextmanager
def server() -> Iterator[tuple[str, int, float]]:
    """A fresh server: its address, process id and the moment it began to answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", "app/main.py", "--server.port", str(port),
         "--server.address", "127.0.0.1", "--server.headless", "true"],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        yield address, process.pid, _up(address, process)
    finally:
        process.terminate()
        process.wait(30)


def _up(address: str, process: subprocess.Popen) -> float:
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2):
                return time.perf_counter()
        except OSError:
            time.sleep(0.01)
    raise SystemExit("The server ended at once.")


def has_torch(process_id: int) -> bool:
    """Whether the process has torch's libraries mapped."""
    return "libtorch" in Path(f"/proc/{process_id}/maps").read_text()


def first_visit(page: Page, address: str, up: float) -> tuple[float, float]:
    """Seconds from ``up`` to the first picture, and to the whole page."""
    page.goto(address)
    page.wait_for_selector(".js-plotly-plot .main-svg")
    picture = time.perf_counter() - up
    page.wait_for_function(_WHOLE, arg=["Heads", CHARTS["Heads"]])
    return picture, time.perf_counter() - up


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


def measure(starts: int, rounds: int, browser_path: str) -> list[str]:
    """Rows of the table."""
    pictures, wholes = [], []
    times: dict[str, list[float]] = {name: [] for name in CHARTS}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for start in range(starts):
            page = browser.new_page(viewport={"width": 1280, "height": 720})
            page.set_default_timeout(300_000)
            page.goto("about:blank")
            with server() as (address, process_id, up):
                picture, whole = first_visit(page, address, up)
                if has_torch(process_id):
                    raise SystemExit("The first page has loaded torch.")
                pictures.append(picture)
                wholes.append(whole)
                if start == starts - 1:
                    for _ in range(rounds):
                        for name in CHARTS:
                            times[name].append(switch(page, name))
                    switch(page, "Heads")
                    moves = [move_tau(page) for _ in range(rounds)]
                    if has_torch(process_id):
                        raise SystemExit("Looking at pages has loaded torch.")
            page.close()
        browser.close()
    rows = [row("first picture, new server", pictures, "2"),
            row("first page whole, new server", wholes, "")]  # fmt: skip
    rows += [row(f"switch to {name}", found, "1") for name, found in times.items()]
    return [*rows, row("move of τ, all four charts", moves, "")]


def main(find: Callable[[str], str | None] = shutil.which) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    path = next((found for found in map(find, BROWSERS) if found), None)
    if path is None:
        raise SystemExit("No Chromium is installed; this benchmark drives a real browser.")
    before = os.getloadavg()[0]
    rows = measure(options.starts, options.rounds, path)
    print("| what | median, s | slowest, s | limit, s | times |\n|---|---|---|---|---|")
    print("\n".join(rows))
    print(f"\nLoad of the machine: {before:.1f} before, {os.getloadavg()[0]:.1f} after, "
          f"on {os.cpu_count()} cores.")  # fmt: skip


if __name__ == "__main__":
    main()
