"""The Heads page on the demo measurement: τ, block, clicks, and what the recipe takes over."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from app.charts.divergence import pair_rows
from app.charts.overview import overview_rows
from app.charts.pattern import pattern_rows
from app.jobs import tasks
from app.session import state, visitor_jobs
from app.views.heads import preview
from pruning.artifacts.rules import LN2
from pruning.measure.attention_maps import AttentionPatterns
from pruning.planning import make_plan
from pruning.planning.graph import block_graph, count_similar
from tests.helpers.recipes import plain_recipe
from tests.helpers.stand_ins import OWNER, at_address, button, draft_of, labelled, wait_for, words


@pytest.fixture
def heads(visit):
    return visit("heads")


def charts(at) -> dict[str, dict]:
    """The figures by what they show."""
    names = ("graph", "map", "overview", "sheet")
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
    assert len(charts(heads)) == 4
    assert all(element.proto.alt for element in heads.get("plotly_chart"))
    assert draft_of(heads).heads.threshold is None


def saved(at) -> str:
    return re.search(r"\*\*([\d.]+) M of 134.5 M parameters", words(at)).group(1)


def test_what_is_saved_follows_tau_and_ratio(heads):
    """134.5 M parameters: the demo model."""
    first = float(saved(heads))
    labelled(heads.slider, "τ, nats (natural log)").set_value(0.2).run()
    second = float(saved(heads))
    labelled(heads.slider, "Heads to remove").set_value(0.7).run()
    assert first < second < float(saved(heads))
    assert "of 1,536 FFN channels stay" in words(heads)


def test_the_numbers_behind_the_charts_can_be_taken_along(heads):
    labels = [button.label for button in heads.get("download_button")]
    tables = ["divergence.csv", "blocks.csv", "heads.csv"]
    assert labels[:3] == tables
    assert labels[3:] == [
        f"{name}.{kind}" for name in ("block-0", "all-blocks") for kind in ("graphml", "json")
    ]
    measured = state.demo_measurement()
    divergence = measured.blocks[4].divergence
    rows = pair_rows(divergence)
    assert len(rows) == 36 and rows[-1]["divergence_nats"] == divergence[7, 8]
    plan = make_plan(measured, plain_recipe())
    recipe = plain_recipe().changed(heads={"threshold": 0.1})
    counts = [
        count_similar(block_graph(measured, plan, recipe, n, np.zeros((9, 2)))) for n in range(30)
    ]
    losses = preview.losses_per_block(measured, plan)
    table = overview_rows(plan, counts, losses)
    assert [row["edges"] for row in table] == [count.edges for count in counts]
    assert table[3]["loss_curve_ffn_nats"] == losses["ffn"][3]
    looks = pattern_rows(("a", "b"), np.array([[1.0, 0.0], [0.25, 0.75]]))
    assert [row["attention"] for row in looks] == [1.0, 0.25, 0.75]


def test_tau_moves_edges_and_plan_but_no_node(heads):
    before = charts(heads)
    labelled(heads.slider, "τ, nats (natural log)").set_value(0.2).run()
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
    labelled(heads.slider, "τ, nats (natural log)").set_value(0.15).run()
    assert draft_of(heads).heads.threshold == 0.15
    assert labelled(heads.toggle, "Prune with this τ").value
    labelled(heads.toggle, "Prune with this τ").set_value(False).run()
    assert draft_of(heads).heads.threshold is None
    assert labelled(heads.slider, "τ, nats (natural log)").value == 0.15
    labelled(heads.toggle, "Prune with this τ").set_value(True).run()
    assert draft_of(heads).heads.threshold == 0.15


@pytest.mark.parametrize("tau", [0.0, 0.693])
def test_the_ends_of_the_scale_work(heads, tau):
    labelled(heads.slider, "τ, nats (natural log)").set_value(tau).run()
    assert not heads.exception and not heads.error
    assert labelled(heads.slider, "τ, nats (natural log)").value == tau
    edges = sum(trace(charts(heads)["overview"], "edges")["y"])
    assert edges == (0 if tau == 0 else 30 * 36)


def test_tau_of_the_recipe_is_shown(visit):
    draft = plain_recipe().changed(heads={"threshold": LN2})
    at = visit("heads", recipe=draft)
    assert labelled(at.slider, "τ, nats (natural log)").value == 0.693
    assert labelled(at.toggle, "Prune with this τ").value
    assert draft_of(at).heads.threshold == LN2


def test_another_block_shows_other_heads(heads):
    before = node_places(charts(heads)["graph"])
    labelled(heads.slider, "Block").set_value(12).run()
    assert not heads.exception
    assert node_places(charts(heads)["graph"]) != before
    assert "Block 12:" in words(heads)
    assert heads.query_params["block"] == "12"


def test_the_address_opens_a_block(visit, engine):
    at = at_address(block="7").run()
    assert "Block 7:" in words(at)
    for wrong in ("99", "x", "-1"):
        at = at_address(block=wrong).run()
        assert not at.exception and "Block 0:" in words(at)


def test_a_head_can_be_chosen_without_a_mouse(heads):
    labelled(heads.selectbox, "Head").set_value(7).run()
    assert "shared with heads 6, 8" in words(heads)
    graph = charts(heads)["graph"]
    ring = trace(graph, "selected")
    assert (ring["x"][0], ring["y"][0]) == node_places(graph)["head:7"]


@pytest.mark.parametrize("policy", ["query", "kv_group"])
def test_fates_follow_the_rules_of_the_recipe(visit, policy):
    draft = plain_recipe().changed(
        heads={"threshold": 0.12, "policy": policy, "ratio": 0.34}, blocks={"start": 0, "end": 3}
    )
    at = visit("heads", recipe=draft)
    gone = trace(charts(at)["overview"], "gone")["y"]
    assert sum(gone[:3]) > 0 and sum(gone[3:]) == 0
    assert not at.exception


def test_a_block_range_of_another_model_is_said_in_one_sentence(visit):
    draft = plain_recipe().changed(blocks={"start": 0, "end": 80})
    at = visit("heads", recipe=draft)
    assert not at.exception and len(charts(at)) == 4
    assert "30 blocks" in at.warning[0].value.replace("\n", " ")


@pytest.mark.parametrize("blocks", [{"start": 0, "end": None}, {"start": 40, "end": 50}])
def test_a_score_that_was_not_measured_falls_back_to_the_usual_one(visit, blocks):
    draft = plain_recipe().changed(heads={"score": "fisher", "ratio": 0.3}, blocks=blocks)
    heads = visit("heads", recipe=draft)
    assert not heads.exception and len(charts(heads)) == 4
    assert "needs a gradient pass" in heads.warning[-1].value
    assert "Second moment" in heads.warning[-1].value
    assert draft_of(heads).heads.score == "fisher"


def test_the_ratio_takes_heads_at_once(heads):
    labelled(heads.slider, "Heads to remove").set_value(0.34).run()
    assert not heads.exception
    assert min(trace(charts(heads)["overview"], "gone")["y"]) == 3
    assert draft_of(heads).heads.ratio == 0.34


def test_a_mark_goes_into_the_recipe_and_the_charts(heads):
    labelled(heads.selectbox, "Head").set_value(4).run()
    labelled(heads.selectbox, "Mark by hand").set_value("drop").run()
    assert not heads.exception and not heads.warning
    assert draft_of(heads).marks[0].drop == (4,)
    found = charts(heads)
    assert trace(found["overview"], "◇ marked drop")["customdata"] == ["block:0:4"]
    assert trace(found["graph"], "marked")["text"] == ["drop"]
    # grouped queries: each of the three groups gives up one
    assert trace(found["overview"], "gone")["y"][0] == 3
    assert "marked by hand" in words(heads) and "block 0 drops 4" in words(heads)
    labelled(heads.selectbox, "Mark by hand").set_value("keep").run()
    assert draft_of(heads).marks[0].keep == (4,)
    assert "marked keep by hand" in words(heads)
    button(heads, "Clear all marks").click().run()
    assert not draft_of(heads).marks


def test_marks_that_cannot_be_honoured_are_one_sentence(visit):
    draft = plain_recipe().changed(marks={0: {"drop": [0, 1], "keep": [3, 4]}})
    at = visit("heads", recipe=draft)
    assert not at.exception and len(charts(at)) == 4
    assert "cannot be honoured" in at.warning[0].value
    assert draft_of(at) == draft


def test_the_open_block_and_the_picked_head_are_shown_everywhere(heads):
    labelled(heads.slider, "Block").set_value(12).run()
    labelled(heads.selectbox, "Head").set_value(7).run()
    found = charts(heads)
    ring = trace(found["overview"], "selected")
    assert (ring["x"], ring["y"]) == ([12], [7])
    assert trace(found["graph"], "selected") and trace(found["sheet"], "selected")
    assert trace(found["sheet"], "blocks")["customdata"] == [f"block:{n}" for n in range(30)]
    labelled(heads.button_group, "Order").set_value("alike").run()
    counts = trace(charts(heads)["overview"], "edges")["y"]
    first = trace(charts(heads)["sheet"], "blocks")["customdata"][0]
    assert counts[int(first.split(":")[1])] == max(counts)


def test_attention_maps_are_offered_then_drawn(heads, monkeypatch):
    maps = np.tril(np.ones((9, 5, 5))) / np.arange(1, 6)[None, :, None]
    made = AttentionPatterns(tuple("abcde"), (maps.astype(np.float32),) * 30)
    monkeypatch.setattr(tasks, "looking", lambda *_: lambda progress, cancel: made)
    assert "needs the model itself" in words(heads)
    button(heads, "Load and look").click().run()
    wait_for(lambda: not visitor_jobs.manager().of(OWNER)[-1].active)
    heads.run()
    assert not heads.exception and "needs the model itself" not in words(heads)
    assert len(heads.get("plotly_chart")) == 6
    labelled(heads.text_input, "Sentence").set_value("Another one.").run()
    assert "needs the model itself" in words(heads)


def test_losses_join_the_overview_when_they_were_measured(visit, monkeypatch):
    draft = plain_recipe().changed(heads={"ratio": 0.34})
    losses = {"attention": [0.1] * 30, "ffn": [0.2] * 30}
    monkeypatch.setattr(preview, "has_loss_curves", lambda measurement: True)
    monkeypatch.setattr(preview, "plan_losses", lambda measurement, plan: losses)
    at = visit("heads", recipe=draft)
    assert trace(charts(at)["overview"], "loss, attention")["y"] == [0.1] * 30
    assert "by its loss curve" in words(at)
