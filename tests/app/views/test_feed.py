"""Decisions become sentences, frames and figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from app.charts import feed as pictures
from app.charts import recovery
from app.session import state
from app.views.prune import decisions
from pruning.artifacts.events import ModuleEvent
from pruning.artifacts.plan import ModulePlan
from pruning.planning import make_plan
from pruning.planning.graph import add_decisions, positions_of, ring_graph
from tests.helpers.stand_ins import fake_events, small_recipe


def attention(removed=(), criteria=(), values=(), partners=(), **more) -> ModulePlan:
    fields = {"units": 8, "groups": 8, "grouped": False, **more}
    return ModulePlan(
        12,
        "attention",
        fields["units"],
        fields["groups"],
        fields["grouped"],
        removed,
        criteria,
        values,
        partners,
        tuple(0 for _ in removed),
        more.get("removed_groups", ()),
    )


def event(module: ModulePlan, before=0.08, after=0.02) -> ModuleEvent:
    return ModuleEvent(
        module.block,
        module.kind,
        module.units,
        module.removed,
        module.removed_groups,
        before,
        after,
        0.1,
        1.0,
        0.5,
        module,
    )


ALIKE, SCORE = "similarity", "second_moment"


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (
            attention((3, 7), (ALIKE, ALIKE), (0.14, 0.14), (1, 1)),
            "heads 3, 7 go, like head 1, JS 0.14; error 0.08 → 0.02",
        ),
        (
            attention((3, 4, 7), (ALIKE, ALIKE, SCORE), (0.14, 0.1, 2.0), (1, 0, -1)),
            "head 3 goes, like head 1, JS 0.14; head 4 goes, like head 0, JS 0.10; head 7 goes, "
            "weakest by",
        ),
        (
            attention((3, 4, 7), (ALIKE,) * 3, (0.14, 0.1, 0.12), (1, 0, 2)),
            "heads 3, 4, 7 go, each like another, JS 0.10 to 0.14",
        ),
        (attention((2,), ("by hand",), (0.0,), (-1,)), "head 2 goes, marked by hand"),
        (
            attention(
                (2, 3),
                (ALIKE,) * 2,
                (0.2, 0.2),
                (0, 0),
                groups=4,
                grouped=True,
                removed_groups=(1,),
            ),
            "key/value group 1 goes (2 heads), like group 0, JS 0.20",
        ),
        (attention(), "nothing goes here, but it makes up for what went before"),
    ],
)
def test_one_sentence_per_decision(module, words):
    assert decisions.sentence(event(module)).startswith(f"Block 12 attention: {words}")


def test_numbers_in_sentences():
    assert decisions.sentence(event(attention(), 0.3, 0.3)).endswith("; error 0.30")
    assert [decisions.number(e) for e in (0.5, 0.08, 0.0123, 0.0, 2e-6)] == [
        "0.50",
        "0.08",
        "0.012",
        "0",
        "under 0.0001",
    ]


@pytest.fixture(scope="module")
def events():
    return fake_events(make_plan(state.demo_measurement(), small_recipe()))


def test_frames_follow_the_decisions(events):
    start = decisions.frame(events, 0)
    assert start.newest is None and start.block == 2 and start.attention is None
    first = decisions.frame(events, 1)
    assert first.attention == events[0].decision and first.ffn is None
    end = decisions.frame(events, 99)
    assert end.step == len(events) and end.block == events[-1].block
    assert end.channels_gone == sum(len(e.removed) for e in events if e.kind == "ffn")
    assert decisions.frame([], 3).newest is None


def test_the_share_that_is_left_ends_where_the_plan_ends(events):
    plan = make_plan(state.demo_measurement(), small_recipe())
    assert decisions.kept_so_far([], plan.shape) == 1.0
    shares = [decisions.kept_so_far(events[:n], plan.shape) for n in range(len(events) + 1)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == pytest.approx(plan.kept_block_parameters)
    assert decisions.units_of([], 2, "attention", plan.shape) == 9
    assert (
        decisions.units_of(events, 2, "ffn", None) == 1536
        and decisions.units_of([], 0, "ffn", None) == 0
    )


def graph_at(spots, pairs=(), decision=None):
    """Heads at ``spots`` [heads, 2] that ``pairs`` join, as ``decision`` leaves them."""
    graph = ring_graph(len(spots))
    graph.add_edges_from(pairs)
    for node, (x, y) in zip(graph.nodes.values(), spots, strict=True):
        node.update(x=x, y=y)
    return add_decisions(graph, decision) if decision else graph


def test_the_graph_loses_heads_and_their_lines():
    decision = attention((3, 7), (ALIKE, ALIKE), (0.14, 0.14), (1, 1))
    spots, pairs = positions_of(ring_graph(8)), [(1, 3), (0, 2)]
    whole = pictures.heads(graph_at(spots, pairs), fresh=False)
    assert len(whole.data[0].x) == 6 and len(whole.data[1].x) == 8
    graph = graph_at(spots, pairs, decision)
    lines, why, left, gone, crosses = pictures.heads(graph, fresh=True).data
    assert len(lines.x) == 3 and len(why.x) == 6
    assert list(gone.text) == ["3", "7"] and len(crosses.x) == 2 and len(left.x) == 6
    assert gone.marker.symbol == "circle-open"
    on_page = pictures.heads(graph, fresh=True, paper="#123456").data
    assert on_page[2].marker.color == "#123456" and on_page[2].x == gone.x
    assert "3, 7" in pictures.heads_alt(12, graph)
    assert "all still there" in pictures.heads_alt(12, graph_at(spots, pairs))


def test_a_cross_stands_where_no_other_head_is():
    decision = attention((0,), (ALIKE,), (0.1,), (1,), units=4, groups=4)
    spots = np.array([[0.5, 0.5], [0.55, 0.6], [0.45, 0.4], [0.55, 0.4]])
    crosses = pictures.heads(graph_at(spots, decision=decision), fresh=False).data[-1]
    assert list(crosses.textposition) == ["top left"]
    spots[1:] += 10.0
    alone = pictures.heads(graph_at(spots, decision=decision), fresh=False).data[-1]
    assert list(alone.textposition) == ["top right"]


def test_the_bar_shrinks():
    kept, gone = pictures.ffn_bar(1000, 750).data
    assert kept.x == (75.0,) and gone.x == (25.0,) and "750 of 1,000" in kept.text[0]
    assert gone.text == ("✕ 250",) and kept.textfont.size == gone.textfont.size
    assert "750" in pictures.ffn_alt(3, 1000, 750)


@pytest.mark.parametrize(("left", "place"), [(1000, 0), (970, 0), (100, 1)])
def test_a_narrow_part_of_the_bar_leaves_its_words_to_the_other(left, place):
    words = [bar.text[0] for bar in pictures.ffn_bar(1000, left).data]
    assert f"{left:,} of 1,000" in words[place] and not words[1 - place]
    assert (f"✕ {1000 - left}" in words[place]) == (left < 1000)


def test_heads_that_stand_close_are_drawn_smaller():
    def size(spots):
        return pictures.heads(graph_at(spots), fresh=False).data[1].marker.size

    apart, close = size([[0.0, 0.0], [1.0, 1.0]]), size([[0.5, 0.5], [0.6, 0.5]])
    assert 30 <= close < apart
    assert size([[0.5, 0.5]]) == apart


def test_the_error_lines_keep_their_axes_in_a_replay(events):
    reach = range(2, 30)
    some = recovery.large_errors(recovery.error_chart(events[:1], reach, events))
    every = recovery.large_errors(recovery.error_chart(events, reach, events))
    assert some.layout.yaxis.range == every.layout.yaxis.range
    assert every.data[-1].name == "newest"
    zero = [replace(e, error_before=0.0, error_after=0.0) for e in events]
    assert recovery.large_errors(recovery.error_chart(zero, reach, zero)).layout.yaxis.range is None
    assert "nothing is cut" in recovery.error_chart([], range(2)).alt
