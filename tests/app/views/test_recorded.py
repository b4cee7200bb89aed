"""The recorded run: a first visitor looks at a whole run before anything was computed."""

from __future__ import annotations

import pytest
import streamlit as st

from app.jobs import tasks
from app.session import recorded, state
from pruning.artifacts.comparison import headline
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.recorded import DEMO_RUN, RecordedRun
from pruning.utils.errors import SourceError
from tests.helpers.stand_ins import (
    at_address,
    button,
    charts,
    draft_of,
    failing,
    labelled,
    page_file,
    words,
)

RUN = RecordedRun.read(DEMO_RUN)


def html(at):
    return "\n".join(element.proto.body for element in at.get("html"))


@pytest.fixture
def first(engine):
    """A page as the very first visitor opens it."""

    def open_page(name):
        return at_address().switch_page(page_file(name)).run()

    return open_page


def test_it_is_the_run_that_the_first_draft_makes():
    assert RUN.recipe == state.initial_recipe()
    assert Recipe.parse(RUN.report.recipe) == RUN.recipe
    assert RUN.plan.shape == state.demo_measurement().shape
    for event in RUN.events:
        assert event.removed == event.decision.removed and event.block == event.decision.block
    found = RUN.comparison
    assert not found.problems and found.prompt and len(found.tokens.passages) >= 8
    assert found.speed.after.decode > 0 and found.texts.before.text != found.texts.after.text
    assert 1.0 < found.perplexity.after.perplexity / found.perplexity.before.perplexity < 1.35


def test_it_is_read_as_it_was_written(tmp_path):
    RUN.write(tmp_path / "run.json.gz")
    assert RecordedRun.read(tmp_path / "run.json.gz") == RUN
    assert DEMO_RUN.stat().st_size < 400_000


def test_a_damaged_one_is_left_out(tmp_path, monkeypatch, first):
    damaged = tmp_path / "run.json.gz"
    damaged.write_bytes(DEMO_RUN.read_bytes()[:1000])
    with pytest.raises(SourceError, match="run.json.gz"):
        RecordedRun.read(damaged)
    st.cache_resource.clear()
    monkeypatch.setattr(recorded, "DEMO_RUN", damaged)
    at = first("compare")
    assert not at.exception and "Nothing to compare yet" in words(at)


def test_compare_is_full_at_once_and_says_that_it_is_recorded(first):
    at = first("compare")
    assert not at.exception
    assert "Recorded on" in words(at) and "nothing was computed for you" in words(at)
    assert headline(RUN.report.kept_block_parameters, RUN.comparison) in html(at)
    score = RUN.comparison.perplexity.after.perplexity
    assert f"{score:.2f}" in [metric.value for metric in at.metric]
    assert len(charts(at)) == 2 and len(at.text) == 2
    assert any(item.label == "Report, HTML" for item in at.get("download_button"))
    assert button(at, "Evaluate").disabled  # there is no model


def test_prune_plays_it_without_computing(first):
    at = first("prune")
    assert "Recorded on" in words(at)
    button(at, "Play the recording").click().run()
    assert not at.exception
    slider = labelled(at.slider, "Decision")
    assert slider.max == len(RUN.events)
    slider.set_value(3).run()
    assert f"Block {RUN.events[2].block} " in html(at)
    labelled(at.slider, "Decision").set_value(len(RUN.events)).run()
    assert headline(RUN.report.kept_block_parameters, RUN.comparison) in html(at)
    button(at, "Back to the recipe").click().run()
    assert button(at, "Run")


@pytest.mark.parametrize("name", ["prune", "compare"])
def test_run_it_here_does_the_same_live(first, monkeypatch, name):
    asked = []

    def pruning_run(store, recipe, *_):
        asked.append(recipe)
        raise failing("Not here.")

    monkeypatch.setattr(tasks, "pruning_run", pruning_run)
    at = first(name)
    if name == "prune":
        button(at, "Play the recording").click().run()
    next(item for item in at.button if item.label.startswith("Run it here")).click().run()
    assert asked == [RUN.recipe] and draft_of(at) == RUN.recipe


def test_a_run_of_ones_own_takes_its_place(visit, engine):
    engine.submit(finish=True)
    for name in ("prune", "compare"):
        assert "Recorded on" not in words(visit(name))
