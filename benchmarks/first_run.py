"""``python -m benchmarks.first_run``: the first run of a first visitor, in a real browser.

A fresh server with a fresh profile, the embedded model and the recipe that is filled in. From the
press of *Run*: seconds until the first decision is shown, and until the page says what came of it,
with perplexity before and after. The page is open for ``--after`` seconds first, as it is when
somebody reads it; meanwhile the server loads the model (``--after 0``: it must be loaded).
"""

from __future__ import annotations

import argparse
import re
import statistics
import time

from playwright.sync_api import Browser

from benchmarks.pages import WINDOW, chromium
from benchmarks.server import server

LIMITS = {"first decision": 10, "answer": 60}
SAID = re.compile(r"about (?:(\d+) min)?\s*(?:(\d+) s)?")


def first_run(browser: Browser, after: float) -> dict[str, float]:
    """Seconds from the press of *Run*, and those that the page had foretold."""
    page = browser.new_page(viewport=WINDOW)
    page.set_default_timeout(1_800_000)
    with server(environment={"HEADROOM_PRELOAD": "1"}) as (address, _, _):
        page.goto(f"{address}/prune")
        button = page.get_by_role("button", name="Run", exact=True)
        button.wait_for()
        page.wait_for_timeout(1000 * after)
        page.reload()  # what a visitor sees who comes to press it now
        button.wait_for()
        said = page.get_by_text("on this machine").first.inner_text()
        started = time.perf_counter()
        button.click()
        page.get_by_role("status").filter(has_text=re.compile(r"Block \d+ \w+: ")).wait_for()
        decided = time.perf_counter() - started
        answer = page.get_by_text(re.compile(r"perplexity [\d.,]+ → [\d.,]+")).first
        answer.wait_for()
        ended = time.perf_counter() - started
        print(f"{answer.inner_text()} (the page said: {said.split(' · ')[0]})", flush=True)
    page.close()
    minutes, seconds = (int(part or 0) for part in SAID.search(said).groups())
    return {"first decision": decided, "answer": ended, "foretold": 60 * minutes + seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--after", type=float, default=20.0)
    options = parser.parse_args()
    with chromium() as browser:
        runs = [first_run(browser, options.after) for _ in range(options.runs)]
        print("| from pressing Run | median, s | slowest, s | limit, s |\n|---|---|---|---|")
        for name in runs[0]:
            times = [run[name] for run in runs]
            row = (
                name,
                f"{statistics.median(times):.1f}",
                f"{max(times):.1f}",
                LIMITS.get(name, ""),
            )
            print(f"| {' | '.join(map(str, row))} |")


if __name__ == "__main__":
    main()
