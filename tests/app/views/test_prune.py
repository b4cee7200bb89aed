"""The Prune page in each of its states, without a browser."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from app.components import scroll_top
from app.components.recipe_fields import declared
from app.components.recipe_summary import group_note
from app.session import state, visitor_jobs
from pruning.artifacts.recipe import Recipe
from pruning.criteria import CRITERIA
from pruning.planning.allocation import ALLOCATIONS
from pruning.registries import HEAD_POLICIES
from tests.helpers.recipes import plain_recipe
from tests.helpers.stand_ins import (
    OWNER,
    button,
    charts,
    draft_of,
    failing,
    labelled,
    wait_for,
    words,
)


def html(at):
    return "\n".join(element.proto.body for element in at.get("html"))


def test_prune_counts_live(visit):
    at = visit("prune")
    assert not at.exception and len(charts(at)) == 1
    before = at.metric[0].value
    slider = labelled(at.slider, "FFN channels to remove")
    slider.set_value(0.5).run()
    assert at.metric[0].value != before
    assert draft_of(at).ffn.ratio == 0.5


def test_tau_is_shared_by_toggle_and_slider(visit):
    at = visit("prune")
    toggle = labelled(at.toggle, "Remove heads that attend alike")
    toggle.set_value(True).run()
    tau = next(s for s in at.slider if "nats" in s.label)
    tau.set_value(0.1).run()
    assert draft_of(at).heads.threshold == 0.1
    assert at.metric[3].value != "0 of 270"


def test_rounding_by_key_value_groups_is_said_where_it_applies(visit):
    """The demo model: nine heads on three key/value heads."""
    at = visit("prune")
    assert "3 key/value groups" in words(at) and "rounded to a multiple of 3" in words(at)
    labelled(at.selectbox, "Grouped queries").select("kv_group").run()
    assert "Whole key/value groups go" in words(at) and "is a multiple of 3" in words(at)
    shape = state.demo_measurement().shape
    assert all(group_note(shape, policy) for policy in HEAD_POLICIES.names())
    alone = replace(shape.blocks[0].attention, groups=shape.blocks[0].attention.units)
    apart = replace(shape, blocks=(replace(shape.blocks[0], attention=alone),))
    assert group_note(apart, "query") == ""


def test_an_empty_plan_cannot_run(visit):
    at = visit("prune", recipe=plain_recipe().changed(ffn={"ratio": 0.0}))
    assert button(at, "Run").disabled


@pytest.mark.parametrize(
    "kind, label, value",
    [
        ("slider", "Parameters to keep", 0.7),
        ("selectbox", "Budget", "model"),
        ("selectbox", "Method", "flap"),
        ("slider", "Blocks, first to last", (2, 9)),
        ("slider", "Parameters to keep", None),
    ],
)
def test_what_was_shown_of_an_earlier_recipe_is_not_written_into_the_next(
    visit, kind, label, value
):
    """A browser sends all that it showed together with the upload that replaces it."""
    at = visit("prune", recipe=plain_recipe().changed(budget={"kept": 0.85}))
    next_one = plain_recipe().changed(ffn={"ratio": 0.25})
    at.session_state[state._DRAFT] = next_one
    at.session_state[state._EDITION] = 9
    if value is not None:
        labelled(getattr(at, kind), label).set_value(value)
    at.run()
    assert not at.exception and draft_of(at) == next_one


def test_a_recipe_for_another_model_has_no_preview_but_can_run(visit):
    other = plain_recipe().changed(model={"source": "openai-community/gpt2"})
    at = visit("prune", recipe=other)
    assert "not measured yet" in at.warning[0].value and not at.metric
    assert not button(at, "Run").disabled


def test_a_score_that_was_not_measured_has_no_preview_but_can_run(visit):
    at = visit("prune")
    box = labelled(at.selectbox, "Criterion for FFN channels")
    assert box.options == [entry.title for entry in CRITERIA]
    box.select("taylor_element1").run()
    assert draft_of(at).ffn.score == "taylor_element1"
    assert not at.exception and not at.error and not at.metric
    assert "needs a gradient pass" in at.warning[0].value
    assert not button(at, "Run").disabled


def test_every_other_score_previews_on_the_demo(visit):
    at = visit("prune")
    for entry in CRITERIA:
        if not entry.value.gradients:
            for label in ("Criterion for heads", "Criterion for FFN channels"):
                next(s for s in at.selectbox if s.label == label).select(entry.name)
            at.run()
            assert not at.exception and not at.warning and at.metric


def test_prune_plays_the_run_and_it_can_be_cancelled(visit, engine):
    job = engine.submit()
    at = visit("prune")
    assert not at.exception and len(charts(at)) == 3  # heads, FFN, errors
    assert "Block 3 FFN: 384 of 1,536 channels go" in html(at)
    assert any("Block 3 attention" in text.value for text in at.markdown)
    traces = json.loads(charts(at)[2].spec)["data"]
    assert any(trace["y"] for trace in traces)
    button(at, "Cancel").click().run()
    wait_for(lambda: job.status == "cancelled")
    at.run()
    assert "Cancelled" in at.info[0].value
    assert not button(at, "Run").disabled
    assert button(at, "Replay its decisions")


def test_a_paused_run_rests_and_goes_on(visit, engine):
    job = engine.submit()
    at = visit("prune")
    button(at, "Pause").click().run()
    assert job.paused
    button(at, "Resume").click().run()
    assert not job.paused
    engine.gate.set()
    wait_for(lambda: job.status == "done")
    at.run()
    assert "of the block parameters are kept" in words(at)
    assert labelled(at.slider, "Decision").value == len(job.events)


def test_a_run_is_replayed_without_computing(visit, engine):
    job = engine.submit(finish=True)
    at = visit("prune")
    assert 'role="status"' not in html(at)
    button(at, "Replay its decisions").click().run()
    button(at, "Pause").click().run()
    labelled(at.slider, "Decision").set_value(1).run()
    assert not at.exception
    assert html(at).count("Block 2 ") == 1 and job.events[0].block == 2
    gone = at.metric[0].value
    labelled(at.slider, "Decision").set_value(3).run()
    assert "Block 3 " in html(at) and at.metric[0].value != gone
    assert visitor_jobs.manager().of(OWNER) == [job]
    assert "decisions.csv" in [b.label for b in at.get("download_button")]
    button(at, "Back to the recipe").click().run()
    assert 'role="status"' not in html(at) and button(at, "Run")


def test_a_visitor_who_waits_sees_the_place_in_line(visit, engine):
    engine.submit()
    second = visitor_jobs.manager().submit(
        "prune", "Prune demo", engine.prune, owner="second", queue_name="cpu", request=engine.recipe
    )
    at = visit("prune", owner="second")
    assert not at.exception and second.status == "queued"
    assert "waiting, 1 job ahead" in html(at)
    assert button(at, "Pause").disabled
    button(at, "Cancel").click().run()
    assert second.status == "cancelled"


def test_prune_failed(visit, engine, monkeypatch):
    brought_up = []
    monkeypatch.setattr(scroll_top, "show_top", brought_up.append)
    job = engine.submit(failing("There is no disk space."), finish=True)
    at = visit("prune")
    assert at.error[0].value == "There is no disk space."
    # no feed was shown that would have brought the top of the page, where this stands, into view
    assert brought_up == [f"{job.id}.ended"]


def label(path):
    section, _, name = path.rpartition(".")
    model = Recipe.model_fields[section].annotation if section else Recipe
    return model.model_fields[name].title


def labels(at):
    return [item.label for kind in LABELLED for item in at.get(kind)]


LABELLED = ("selectbox", "slider", "number_input", "toggle")


def test_the_form_shows_every_field_that_the_recipe_declares_for_it(visit):
    draft = plain_recipe().changed(recovery={"damping": 0.5, "copies": 1})
    at = visit("prune", recipe=draft)
    assert not at.exception
    for group in ("size", "choosing", "method", "recovery", "calibration"):
        paths = list(declared(group))
        assert paths and {label(path) for path in paths} <= set(labels(at)), group


def test_what_a_component_declares_as_its_own_appears_with_it(visit):
    at = visit("prune")
    own = [label(path) for path in declared("gradients")]
    assert own and not set(own) & set(labels(at))
    for key in ("draft.heads.score.selectbox", "draft.ffn.score.selectbox"):
        at.selectbox(key=key).select("taylor_element1").run()
        assert not at.exception and [labels(at).count(name) for name in own] == [1, 1]
    at.number_input(key="draft.calibration.gradient_samples.number_input").set_value(4).run()
    assert draft_of(at).calibration.gradient_samples == 4


def test_an_automatic_number_can_be_set_by_hand(visit):
    at = visit("prune")
    at.toggle(key="draft.recovery.damping.toggle").set_value(False).run()
    assert draft_of(at).recovery.damping == 0.3
    at.number_input(key="draft.recovery.damping.number_input").set_value(0.0001).run()
    assert draft_of(at).recovery.damping == 0.0001
    at.number_input(key="draft.recovery.samples.number_input").set_value(8).run()
    assert draft_of(at).recovery.samples == 8 and not at.exception


def test_what_can_be_chosen_says_where_it_comes_from(visit):
    box = visit("prune").selectbox(key="draft.recipe.allocation.selectbox")
    for entry in ALLOCATIONS:
        assert entry.title in box.options and f"**{entry.title}**: {entry.summary}" in box.help
        assert entry.source in box.help
