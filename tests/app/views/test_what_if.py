"""The What if page: what is off, its answer, the recipe, every head of a block."""

from __future__ import annotations

import json
import threading

import pytest

from app.jobs.job import Task
from app.session import visitor_jobs
from app.views.what_if import asking, recipe_panel
from pruning.artifacts.ablation import (
    Ablation,
    Change,
    Continued,
    LeaveOneOut,
    NextToken,
    Predictor,
    WhatIf,
)
from pruning.artifacts.comparison import Passage
from pruning.artifacts.events import stop_if
from pruning.artifacts.rules import Marks
from pruning.utils.errors import UsageError
from tests.helpers.finished_jobs import EVIL
from tests.helpers.recipes import plain_recipe
from tests.helpers.stand_ins import (
    OWNER,
    button,
    charts,
    draft_of,
    labelled,
    page_file,
    wait_for,
    words,
)

CHANGE = Change(254, 3.5, 3.75, 0.125, 0.031)


def what_if(off: Ablation) -> WhatIf:
    tokens = (NextToken(" to", 0.5, 0.25), NextToken(f" {EVIL}", 0.1, 0.4))
    passages = (Passage(("The", f" {EVIL}"), (1.0,), (2.0,)),) * 2
    after = Continued("The *boat*", tokens, 0.2, 0.05)
    return WhatIf(off, CHANGE, "sample (test), 2 windows.", passages, after, 0.3)


def one_by_one(block: int) -> LeaveOneOut:
    changes = tuple(Change(254, 3.5, 3.5 + h / 100, h / 50, h / 200) for h in range(9))
    ranks = tuple(float(h) for h in range(9))
    predictors = (
        Predictor("nearest", "Divergence from the nearest head (τ)", ranks, 1.0),
        Predictor("flat", "Flat", (1.0,) * 9, None),
    )
    return LeaveOneOut(block, changes, "sample (test), 2 windows.", predictors, 1.0)


@pytest.fixture
def answers(monkeypatch):
    """A loaded model that answers at once; gives what was asked of it."""
    seen = []

    def trying(bench, off, question, measurement, recipe):
        seen.append(off)
        return Task(lambda progress, should_cancel: what_if(off))

    def each(bench, block, question, measurement, seed):
        return Task(lambda progress, should_cancel: one_by_one(block))

    monkeypatch.setattr(asking, "trying", trying)
    monkeypatch.setattr(asking, "each_head", each)
    monkeypatch.setattr(asking, "is_ready", lambda: True)
    return seen


def off(at, label: str, *names: str):
    return labelled(at.multiselect, label).set_value(list(names)).run()


def test_nothing_is_off_at_first(visit, answers):
    at = visit("what_if")
    assert not at.exception and "Nothing is off" in words(at)
    (drawn,) = charts(at)
    series = {trace["name"]: trace for trace in json.loads(drawn.spec)["data"]}
    assert len(series["heads"]["x"]) == 270 and len(series["FFN"]["x"]) == 30
    assert "off" not in series and "off: nothing" in drawn.alt
    assert not answers
    offers = [b for b in at.button if b.key.startswith("what_if.offer")]
    assert len(offers) == 3
    offers[0].click().run()
    assert len(answers[0].heads) == 1


def test_what_is_off_is_asked_at_once_and_shown(visit, answers):
    at = off(visit("what_if"), "Heads off", "3.1", "3.2")
    assert answers == [Ablation(heads=((3, 1), (3, 2)))]
    assert [metric.value for metric in at.metric] == ["3.500 → 3.750", "0.1250", "0.0310"]
    assert at.metric[0].delta == "+0.2500" and "Perplexity 33.1 → 42.5" in words(at)
    assert "The \\*boat\\*" in words(at)
    html = "".join(element.proto.body for element in at.get("html"))
    assert EVIL not in html and "&lt;script" in html
    at = off(off(at, "FFN off, of blocks", "5"), "Whole blocks off", "7")
    at = labelled(at.select_slider, "Share of an FFN").set_value("50").run()
    assert answers[-1] == Ablation(((3, 1), (3, 2)), ((5, 0.5),), (7,))
    assert at.query_params["off.heads"] == ["3.1,3.2"] or at.query_params["off.heads"] == "3.1,3.2"
    count = len(answers)
    labelled(at.select_slider, "Share of an FFN").set_value("30").run()
    assert len(answers) == count  # it was asked before
    button(at, "All on").click().run()
    assert "Nothing is off" in words(at) and "off.heads" not in at.query_params


def test_an_address_has_things_off(engine, answers):
    from tests.helpers.stand_ins import at_address

    at = at_address(**{"off.heads": "4.8", "off.blocks": "1"}).switch_page(page_file("what_if"))
    at.query_params.update({"off.heads": "4.8", "off.blocks": "1"})
    at.run()
    assert answers == [Ablation(heads=((4, 8),), blocks=(1,))]
    at.query_params["off.heads"] = "4.9"
    at.run()
    assert "does not exist" in words(at) and not at.exception


def test_without_the_model_it_is_offered(visit, answers, monkeypatch):
    monkeypatch.setattr(asking, "is_ready", lambda: False)
    at = off(visit("what_if"), "Heads off", "0.0")
    assert not answers and "needs the model itself" in words(at)
    button(at, "Load and try").click().run()
    assert len(answers) == 1 and at.metric


def test_a_refusal_is_said_once_and_can_be_tried_again(visit, answers, monkeypatch):
    def refused(progress, should_cancel):
        raise UsageError("The sentence is empty; type some text.")

    monkeypatch.setattr(asking, "trying", lambda *_: Task(refused))
    at = off(visit("what_if"), "Heads off", "0.0")
    assert [error.value for error in at.error] == ["The sentence is empty; type some text."]
    at.run()
    assert len(visitor_jobs.manager().of(OWNER, "what_if")) == 1
    assert button(at, "Try again")


def test_the_next_click_stops_what_is_no_longer_wanted(visit, answers, monkeypatch):
    gate = threading.Event()

    def slow(progress, should_cancel):
        while not gate.wait(0.01):
            stop_if(should_cancel)
        return what_if(Ablation(heads=((0, 2),)))

    monkeypatch.setattr(asking, "PATIENCE", 0.05)
    monkeypatch.setattr(asking, "trying", lambda *_: Task(slow))
    at = off(visit("what_if"), "Heads off", "0.1")
    (first,) = visitor_jobs.manager().of(OWNER, "what_if")
    assert first.active and not at.metric and button(at, "Cancel")
    off(at, "Heads off", "0.2")
    wait_for(lambda: first.status == "cancelled")
    second = visitor_jobs.manager().of(OWNER, "what_if")[-1]
    assert second is not first and second.active
    gate.set()
    wait_for(lambda: second.status == "done")
    assert at.run().metric


def test_old_answers_are_forgotten(visit, answers):
    at = visit("what_if")
    for head in range(9):
        off(at, "Heads off", f"0.{head}")
        off(at, "Heads off", f"1.{head}")
    jobs = visitor_jobs.manager().of(OWNER, "what_if")
    assert len(jobs) == asking.KEPT + 1
    assert len(answers) == 18


def test_heads_become_marks(visit, answers):
    at = off(visit("what_if"), "Heads off", "3.1", "3.2", "9.0")
    off(at, "Whole blocks off", "4")
    assert "whole block cannot go" in words(at)
    button(at, "Put into the recipe").click().run()
    assert draft_of(at).marks == {3: Marks(drop=(1, 2)), 9: Marks(drop=(0,))}
    assert button(at, "In the recipe").disabled
    assert "The recipe now takes heads" in words(at) and "of block 9" in words(at)


def test_shares_go_into_a_recipe_with_ratios_by_hand():
    some = Ablation(heads=((2, 1),), ffn=((5, 0.3), (6, 1.0)))
    recipe = plain_recipe().changed(marks={2: {"keep": [1, 4], "drop": [0]}})
    changed = recipe_panel.with_ablation(recipe, some)
    assert changed.marks[2] == Marks(keep=(4,), drop=(0, 1)) and not changed.by_hand
    by_hand = recipe.changed(allocation="by_hand", heads={"ratio": 0.1})
    ratios = recipe_panel.with_ablation(by_hand, some).by_hand
    assert {b: (rule.heads, rule.ffn) for b, rule in ratios.items()} == {
        5: (0.1, 0.3),
        6: (0.1, 0.95),
    }


def test_every_head_of_a_block(visit, answers):
    at = visit("what_if")
    labelled(at.slider, "Block").set_value(4).run()
    button(at, "Switch off each head of block 4").click().run()
    wait_for(lambda: not visitor_jobs.manager().of(OWNER, "each_head")[-1].active)
    at.run()
    assert not at.exception
    drawn = charts(at)[-1]
    assert "Spearman's ρ = 1.00" in drawn.alt and "block 4" in drawn.alt
    assert json.loads(drawn.spec)["data"][0]["customdata"][7] == "head:4:7"
    assert "one of twenty" in words(at)
    labelled(at.selectbox, "Predicted by").set_value("flat").run()
    assert "nothing to rank" in charts(at)[-1].alt


def test_heads_leads_here(visit, engine):
    at = visit("heads")
    links = [link.proto for link in at.get("page_link")]
    assert any("off.heads=" in link.query_string for link in links)
