"""The Heads page on the demo measurement: τ, block, clicks, and what the recipe takes over."""

from __future__ import annotations

import json

import numpy as np
import pytest
from stand_ins import words

from app import state
from pruning.recipe import LN2


@pytest.fixture
def heads(visit):
    return visit("heads")


def charts(at) -> dict[str, dict]:
    """The three figures by what they show."""
    names = ("graph", "map", "overview")
    found = [json.loads(element.proto.spec) for element in at.get("plotly_chart")]
    return dict(zip(names, found, strict=True))


def trace(figure: dict, name: str) -> dict:
    return next(trace for trace in figure["data"] if trace.get("name") == name)


def node_places(figure: dict) -> dict:
    return {
        name: (x, y)
        for t in figure["data"]
        for name, x, y in zip(t.get("customdata", []), t["x"], t["y"], strict=False)
    }


def test_first_look_needs_nothing_loaded(heads):
    assert not heads.exception
    text = words(heads)
    assert "Nearest heads" in text and "nats" in text
    assert len(charts(heads)) == 3
    assert all(element.proto.alt for element in heads.get("plotly_chart"))
    assert heads.session_state["headroom.draft"].heads.threshold is None


def test_tau_moves_edges_and_plan_but_no_node(heads):
    before = charts(heads)
    heads.slider(key="heads.tau").set_value(0.2).run()
    after = charts(heads)
    assert not heads.exception
    assert node_places(before["graph"]) == node_places(after["graph"])
    assert sum(trace(after["overview"], "edges")["y"]) > sum(
        trace(before["overview"], "edges")["y"]
    )
    assert sum(trace(after["overview"], "gone")["y"]) > sum(trace(before["overview"], "gone")["y"])
    divergence = state.demo_measurement().blocks[0].divergence
    below = int((divergence[~np.eye(9, dtype=bool)] < 0.2).sum())
    assert len(trace(after["map"], "below τ")["x"]) == below


def test_tau_goes_into_the_recipe_and_out_again(heads):
    heads.slider(key="heads.tau").set_value(0.15).run()
    assert heads.session_state["headroom.draft"].heads.threshold == 0.15
    assert heads.toggle(key="heads.use").value
    heads.toggle(key="heads.use").set_value(False).run()
    assert heads.session_state["headroom.draft"].heads.threshold is None
    assert heads.slider(key="heads.tau").value == 0.15
    heads.toggle(key="heads.use").set_value(True).run()
    assert heads.session_state["headroom.draft"].heads.threshold == 0.15


@pytest.mark.parametrize("tau", [0.0, 0.693])
def test_the_ends_of_the_scale_work(heads, tau):
    heads.slider(key="heads.tau").set_value(tau).run()
    assert not heads.exception and not heads.error
    assert heads.slider(key="heads.tau").value == tau
    edges = sum(trace(charts(heads)["overview"], "edges")["y"])
    assert edges == (0 if tau == 0 else 30 * 36)


def test_tau_of_the_recipe_is_shown(visit):
    draft = state.initial_recipe().changed(heads={"threshold": LN2})
    at = visit("heads", **{"headroom.draft": draft})
    assert at.slider(key="heads.tau").value == 0.693
    assert at.toggle(key="heads.use").value
    assert at.session_state["headroom.draft"].heads.threshold == LN2


def test_another_block_shows_other_heads(heads):
    before = node_places(charts(heads)["graph"])
    heads.slider(key="heads.block").set_value(12).run()
    assert not heads.exception
    assert node_places(charts(heads)["graph"]) != before
    assert "Block 12:" in words(heads)
    assert heads.query_params["block"] == "12"


def test_the_address_opens_a_block(visit, engine):
    from stand_ins import MAIN
    from streamlit.testing.v1 import AppTest

    at = AppTest.from_file(MAIN, default_timeout=20)
    at.query_params["block"] = "7"
    at.run()
    assert "Block 7:" in words(at)
    for wrong in ("99", "x", "-1"):
        at = AppTest.from_file(MAIN, default_timeout=20)
        at.query_params["block"] = wrong
        at.run()
        assert not at.exception and "Block 0:" in words(at)


def test_a_head_can_be_chosen_without_a_mouse(heads):
    heads.selectbox(key="heads.head").set_value(7).run()
    assert "shared with heads 6, 8" in words(heads)
    graph = charts(heads)["graph"]
    ring = trace(graph, "selected")
    assert (ring["x"][0], ring["y"][0]) == node_places(graph)["head:7"]


@pytest.mark.parametrize("policy", ["query", "kv_group"])
def test_fates_follow_the_rules_of_the_recipe(visit, policy):
    draft = state.initial_recipe().changed(
        heads={"threshold": 0.12, "policy": policy, "ratio": 0.34}, blocks={"start": 0, "end": 3}
    )
    at = visit("heads", **{"headroom.draft": draft})
    gone = trace(charts(at)["overview"], "gone")["y"]
    assert sum(gone[:3]) > 0 and sum(gone[3:]) == 0
    assert not at.exception


def test_a_block_range_of_another_model_is_said_in_one_sentence(visit):
    draft = state.initial_recipe().changed(blocks={"start": 0, "end": 80})
    at = visit("heads", **{"headroom.draft": draft})
    assert not at.exception and len(charts(at)) == 3
    assert "30 blocks" in at.warning[0].value.replace("\n", " ")


@pytest.mark.parametrize("blocks", [{"start": 0, "end": None}, {"start": 40, "end": 50}])
def test_a_score_that_was_not_measured_falls_back_to_the_usual_one(visit, blocks):
    draft = state.initial_recipe().changed(heads={"score": "fisher", "ratio": 0.3}, blocks=blocks)
    heads = visit("heads", **{"headroom.draft": draft})
    assert not heads.exception and len(charts(heads)) == 3
    assert "needs a gradient pass" in heads.warning[-1].value
    assert "Second moment" in heads.warning[-1].value
    assert heads.session_state["headroom.draft"].heads.score == "fisher"
