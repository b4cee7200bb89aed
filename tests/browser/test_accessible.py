"""Without a mouse, without seeing: the keyboard reaches everything, charts say what they show."""

from __future__ import annotations

import pytest

from tests.helpers.steps import go, press, slider, until

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
    for name, charts in WITH_CHARTS.items():
        go(page, name)
        tab.settled()
        page.wait_for_function(
            "n => document.querySelectorAll('[data-testid=stPlotlyChart]').length === n", arg=charts
        )
        words = page.evaluate(_NAMES)
        assert all(len(text) > 20 for text in words), words


def tabbed(page, stops: int) -> list[str]:
    """Names of what Tab reaches, in order, from the top of the page."""
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
            "heads",
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
                "Heads to remove",
                "FFN channels to remove",
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
    for _ in range(3):  # a page that is still filling is walked again
        tab.settled()
        names = tabbed(page, 60)
        if in_order(names, wanted):
            break
    assert in_order(names, wanted), " | ".join(names)


def unfold(page, box) -> None:
    """Open a list by the keyboard, again if a redraw of the page has closed it."""
    for _ in range(20):
        box.focus()
        page.keyboard.press("ArrowDown")
        page.wait_for_timeout(1500)
        if page.get_by_role("option").count():
            return
    raise AssertionError("the list does not open")


def test_a_head_is_picked_and_marked_by_the_keyboard_alone(visit):
    tab = visit()
    page = tab.open("heads")
    tab.settled()
    press(page, "Block", "ArrowRight")
    until(page, "heads-overview", "fig.named.selected.x[0] === 1")
    assert slider(page, "Block").get_attribute("aria-valuetext") == "1"
    for label, key in (("Head", "Home"), ("Mark by hand", "End")):
        unfold(page, page.get_by_role("combobox", name=label, exact=True))
        page.keyboard.press(key)
        page.keyboard.press("Enter")
        page.get_by_role("option").first.wait_for(state="detached")
        tab.settled()
    page.get_by_text("Marked by hand: block 1 drops").wait_for()
