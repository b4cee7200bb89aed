"""An experiment in a browser: started, reloaded, cancelled, resumed, and the recipe of a cell."""

from __future__ import annotations

import csv
import re
import time

import pytest

from app.session import recipe_link
from tests.helpers.chart_steps import click_mark
from tests.helpers.fixtures import tokenizer  # noqa: F401
from tests.helpers.steps import asks_for, at_rest, download, expect, poll, query_now

CHART = "[class*=st-key-experiment-chart]"


@pytest.fixture
def fresh_model(tokenizer, tmp_path):  # noqa: F811
    """Random weights that nobody has had before: finished cells stay on the disk."""
    from tests.helpers import families

    model = families.llama_grouped(vocab_size=200, num_hidden_layers=8)
    families.randomise(model, time.time_ns() % 2**31)
    for part in (model.eval(), tokenizer):
        part.save_pretrained(tmp_path / "tiny-llama")
    return tmp_path / "tiny-llama"


def cells_now(page) -> int:
    """How many cells the progress says are done, read once; -1 where it says nothing yet."""
    texts = " ".join(page.get_by_text("cells done (").all_inner_texts())
    found = re.search(r"cells done \((\d+) of 33", texts)
    return int(found[1]) if found else -1


def press(page, name: str) -> None:
    at_rest(page)
    page.get_by_role("button", name=name, exact=True).click()


def cancelled(page) -> None:
    press(page, "Cancel")
    expect(page.get_by_text("Resume goes on from there")).to_be_visible()
    at_rest(page)


def test_an_experiment_survives_a_reload_and_a_cancel(visit, fresh_model, tmp_path):
    page = visit().open(f"experiments?experiment.name=table2&experiment.model={fresh_model}")
    expect(page.get_by_role("radio", name="Table 2, every method")).to_be_checked()
    press(page, "Start")
    poll(page, lambda: cells_now(page) >= 2)
    job = query_now(page)["job"]

    page.reload()
    poll(page, lambda: cells_now(page) >= 3)
    asks_for(page, "job", job)
    cancelled(page)
    with download(page, "CSV", tmp_path).open() as file:
        done = list(csv.DictReader(file))
    assert 3 <= len(done) < 33 and done[0]["method"] == "Dense" and float(done[1]["sample"]) > 1

    press(page, "Resume")
    poll(page, lambda: cells_now(page) > len(done))
    assert query_now(page)["job"] != job
    cancelled(page)

    names = page.locator(CHART).first.get_attribute("class").split()
    key = next(name for name in names if "experiment-chart" in name).removeprefix("st-key-")
    click_mark(page, key, "cell:2")
    page.get_by_role("button", name="Open the recipe of L1 norm").click()
    expect(page.get_by_role("heading", name="Prune", level=1)).to_be_visible()
    poll(page, lambda: "recipe" in query_now(page))
    recipe = recipe_link.decode(query_now(page)["recipe"])
    assert recipe.heads.score == "l1" and recipe.model.source == str(fresh_model)
