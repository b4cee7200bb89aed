"""Without a mouse, without seeing: the keyboard reaches everything, charts say what they show."""

from __future__ import annotations

import pytest

from app.session import recipe_link
from tests.helpers.chart_steps import until
from tests.helpers.recipes import plain_recipe
from tests.helpers.steps import at_rest, choose, expect, go, poll, press, says

WITH_CHARTS = {"Heads": 4, "Activations": 5, "Prune": 1}

_NAMES = """
() => [...document.querySelectorAll('[data-testid=stPlotlyChart]')].map(chart => {
  const labelled = chart.closest('[aria-label]') ?? chart.querySelector('[aria-label]');
  return labelled?.getAttribute('aria-label') ?? '' })
"""
_FOCUSED = """
() => { const now = document.activeElement;
  const name = now.getAttribute('aria-label') || now.innerText || now.getAttribute('role') || '';
  const box = now.getBoundingClientRect();
  return [name.trim().split('\\n').pop(), Math.round(box.left), Math.round(box.top), now.tagName] }
"""


def test_every_chart_is_a_figure_in_words(visit):
    tab = visit()
    page = tab.open("heads")

    def described() -> list[bool]:
        return [len(text) > 20 for text in page.evaluate(_NAMES)]

    for name, charts in WITH_CHARTS.items():
        go(page, name)
        poll(page, lambda wanted=[True] * charts: described() == wanted)


def tabbed(page, stops: int) -> list[str]:
    """Names of what Tab reaches now, in order, from the top of the page."""
    at_rest(page)
    page.evaluate("document.activeElement.blur()")
    names = []
    for _ in range(stops):
        page.keyboard.press("Tab")
        names.append(page.evaluate(_FOCUSED)[0])
    return names


def in_order(names: list[str], wanted: list[str]) -> bool:
    """Whether ``wanted`` are reached, each after the one before it."""
    left = iter(names)
    return all(any(name in reached for reached in left) for name in wanted)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        (
            f"heads?recipe={recipe_link.encode(plain_recipe())}",
            [
                "Heads",
                "Sweeps",
                "Block",
                "τ",
                "Heads to remove",
                "Prune with this τ",
                "Look",
                "Head",
                "Mark by hand",
                "Sentence",
                "Load and look",
            ],
        ),
        (
            "prune",
            [
                "Prune",
                "Method",
                "Remove heads that attend alike",
                "Ratios",
                "Budget",
                "Parameters to keep",
                "Blocks",
                "Recovery",
                "Recipe file",
                "Run",
            ],
        ),
        (
            "model",
            [
                "Model",
                "Embedded demo",
                "Device",
                "Number format",
                "Check memory",
                "Load",
                "Corpus",
                "Samples",
                "Measure",
            ],
        ),
        ("sweeps", ["Sweeps", "Ratio", "Values", "Methods", "Evaluate on", "Windows", "Start"]),
    ],
)
def test_tab_goes_through_the_page_in_reading_order(visit, path, wanted):
    tab = visit()
    page = tab.open(path)
    walks = []

    def walk() -> bool:
        walks.append(tabbed(page, 60))
        return in_order(walks[-1], wanted)

    try:
        poll(page, walk)  # a page that is still filling is walked again
    except AssertionError:
        raise AssertionError(" | ".join(walks[-1])) from None


def test_a_head_is_picked_and_marked_by_the_keyboard_alone(visit):
    tab = visit()
    page = tab.open("heads")
    press(page, "Block", "ArrowRight")
    says(page, "Block", "1")
    until(page, "heads-overview", "fig.named.selected.x[0] === 1")
    choose(page, "Head", "Home", "Head 0")
    until(page, "heads-overview", "fig.named.selected.y[0] === 0")
    choose(page, "Mark by hand", "End", "Drop")
    expect(page.get_by_text("Marked by hand: block 1 drops 0")).to_be_visible()
