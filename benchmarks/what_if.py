"""``python -m benchmarks.what_if``: from the press on a head to the picture of what it changes.

A fresh server that has loaded the embedded model, the What if page as it is filled in, a real
browser. One head of each of ``--blocks`` is switched off, ``--rounds`` times another one, and on
again; counted are the seconds from the press until loss, divergence and the next token are drawn
for that head.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time

from playwright.sync_api import Page, sync_playwright

from benchmarks.pages import BROWSERS, WINDOW, row, server
from pruning.artifacts.ablation import Ablation

LIMIT = "1"
_PLACE = """
id => {
  const chart = document.querySelector('.st-key-what_if-map .js-plotly-plot');
  const box = chart?.getBoundingClientRect();
  for (const trace of chart?._fullData ?? []) {
    const at = (trace.customdata ?? []).indexOf(id);
    const axis = (name) => chart._fullLayout[name[0] + 'axis' + name.slice(1)];
    if (at < 0) continue;
    const [x, y] = [axis(trace.xaxis), axis(trace.yaxis)];
    return [box.left + x._offset + x.d2p(trace.x[at]), box.top + y._offset + y.d2p(trace.y[at])];
  }
}
"""
"""Where the mark of a head is, in pixels of the window."""
_SHOWN = """
words => [...document.querySelectorAll('[data-stale=false] p')].some(p => p.innerText === words)
  && document.querySelector('.st-key-what_if-next .js-plotly-plot')
  && !document.querySelector('.st-key-what_if-next')?.closest('[data-stale=true]')
"""
_AT_REST = "document.querySelector('[data-testid=stApp][data-test-script-state=notRunning]')"


def press(page: Page, block: int, head: int) -> float:
    """Presses the mark of a head; the moment of it."""
    place = page.wait_for_function(_PLACE, arg=f"head:{block}:{head}").json_value()
    page.mouse.move(place[0] + 2, place[1] + 2)
    page.mouse.move(*place)
    page.wait_for_timeout(300)  # what the mouse is on is found out first
    started = time.perf_counter()
    page.mouse.click(*place)
    return started


def switched_off(page: Page, block: int, head: int) -> float:
    """Seconds from the press on a head until its answer is drawn; then it is on again."""
    words = f"Off: {Ablation(heads=((block, head),)).words()}"
    started = press(page, block, head)
    page.wait_for_function(_SHOWN, arg=words)
    took = time.perf_counter() - started
    page.wait_for_function(_AT_REST)
    page.get_by_role("button", name="All on").click()
    page.get_by_text("Nothing is off").wait_for()
    page.wait_for_function(_AT_REST)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, nargs="+", default=[0, 7, 14, 21, 29])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--after", type=float, default=25.0, help="seconds to load the model in")
    options = parser.parse_args()
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise SystemExit("No Chromium is installed; this benchmark drives a real browser.")
    before = os.getloadavg()[0]
    times: dict[int, list[float]] = {block: [] for block in options.blocks}
    with (
        sync_playwright() as driver,
        server(environment={"HEADROOM_PRELOAD": "1"}) as (address, _, _),
    ):
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport=WINDOW)
        page.set_default_timeout(120_000)
        page.goto(f"{address}/what_if")
        page.get_by_text("Nothing is off").wait_for()
        page.wait_for_timeout(1000 * options.after)
        first = switched_off(page, options.blocks[0], 8)
        for turn in range(options.rounds):
            for block, seconds in times.items():
                seconds.append(switched_off(page, block, turn))
        browser.close()
    print("| a head of block | median, s | slowest, s | limit, s | times |\n|---|---|---|---|---|")
    print(row(f"{options.blocks[0]}, the first press of all", [first], LIMIT))
    for block, seconds in times.items():
        print(row(str(block), seconds, LIMIT))
    after = os.getloadavg()[0]
    print(f"\nLoad of the machine: {before:.1f} before, {after:.1f} after; {os.cpu_count()} cores.")


if __name__ == "__main__":
    main()
