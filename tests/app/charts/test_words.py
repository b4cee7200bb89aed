"""Alternatives in words, explanations, and what a click says."""

from __future__ import annotations

import numpy as np
import pytest

from app.charts import activations as magnitude
from app.charts.divergence import divergence_alt
from app.charts.graph import similarity_alt
from app.charts.overview import overview_alt
from app.charts.picks import picked
from app.components.text import spans
from app.session.positions import node_positions
from app.views.heads.explain import explain_head
from pruning.artifacts.measurement import Measurement
from pruning.artifacts.plan import ModulePlan
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.shapes import ModuleShape
from pruning.planning import make_plan
from pruning.planning.analysis import largest_channels
from pruning.planning.graph import add_decisions, block_graph, count_similar
from tests.helpers.head_graphs import make_graph


def test_every_chart_has_a_text_alternative(demo: Measurement) -> None:
    divergence, activations = demo.blocks[5].divergence, dict(demo.blocks[5].activations)
    plan = make_plan(demo, Recipe().changed(heads={"threshold": 0.1}))
    graphs = [make_graph(block.divergence, 0.1, {1}) for block in demo.blocks]
    counts = [count_similar(graph) for graph in graphs]
    pairs = int((np.triu(divergence < 0.1, 1)).sum())
    texts = [
        similarity_alt(graphs[5]),
        divergence_alt(5, divergence, 0.1),
        divergence_alt(5, np.zeros((1, 1)), 0.1),
        overview_alt(plan, counts),
        magnitude.magnitude_alt(demo),
        magnitude.quantile_profile(5, activations).alt,
        magnitude.channel_bars(5, "ffn", largest_channels(activations["ffn"]), 20.0).alt,
        magnitude.channel_bars(5, "ffn", (), 20.0).alt,
    ]
    assert all(text.endswith(".") and len(text) > 30 for text in texts)
    assert f"{pairs} edges" in texts[0] and "Heads that go: 1." in texts[0]


def test_every_head_is_explained_as_the_plan_decides(demo: Measurement) -> None:
    for rule in ({"threshold": 0.1}, {"ratio": 0.4}, {"threshold": 0.15, "policy": "kv_group"}):
        recipe = Recipe().changed(heads=rule)
        plan = make_plan(demo, recipe)
        for block in (0, 5, 20):
            module = plan.blocks[block].attention
            shape = demo.shape.blocks[block].attention
            divergence = demo.blocks[block].divergence
            graph = block_graph(demo, plan, recipe, block, node_positions(divergence))
            for head in range(9):
                lines = explain_head(head, graph, divergence, module, shape, recipe.heads)
                text = "\n".join(lines)
                assert ("It would go" in text) == (head in module.removed)
                assert (module.reason(head) or "It would stay") in text
                assert "Key/value group" in text


def test_a_head_whose_like_goes_too_says_who_is_left() -> None:
    divergence = np.full((9, 9), 0.4) - 0.4 * np.eye(9)
    for i, j, value in ((0, 3, 0.05), (0, 6, 0.06)):
        divergence[i, j] = divergence[j, i] = value
    shape = ModuleShape("attention", 9, 9, 1, 1, 0, 0, 0, 0)
    rule = Recipe().changed(heads={"threshold": 0.1}).heads

    def fate(removed: tuple[int, ...], partners: tuple[int, ...]) -> str:
        count = len(removed)
        module = ModulePlan(
            0,
            "attention",
            9,
            9,
            False,
            removed,
            ("similarity",) * count,
            (0.05,) * count,
            partners,
            (0,) * count,
            removed,
        )
        graph = add_decisions(make_graph(divergence, 0.1), module)
        return explain_head(0, graph, divergence, module, shape, rule)[-1]

    assert fate((0,), (3,)) == "**✕ It would go:** like head 3, JS 0.050 nats."
    assert "Head 3 goes as well; head 6, also within τ, stays." in fate((0, 3), (3, 6))
    assert "no other head within τ stays" in fate((0, 3, 6), (3, 6, 0))


def test_three_heads_that_are_all_alike_are_named_together() -> None:
    divergence = np.full((5, 5), 0.4) - 0.4 * np.eye(5)
    for i, j in ((0, 1), (1, 2), (0, 2), (2, 3)):
        divergence[i, j] = divergence[j, i] = 0.05
    shape = ModuleShape("attention", 5, 5, 1, 1, 0, 0, 0, 0)
    module = ModulePlan(0, "attention", 5, 5, False, (), (), (), (), ())
    graph = add_decisions(make_graph(divergence, 0.1), module)
    rule = Recipe().changed(heads={"threshold": 0.1}).heads

    def told(head: int) -> str:
        return " ".join(explain_head(head, graph, divergence, module, shape, rule))

    assert "every pair below τ: heads 0, 1 and 2." in told(1) and "3 of 4 are below τ" in told(2)
    assert "All alike" not in told(3) and "1 of 4 is below τ" in told(3)


def test_runs_of_blocks_are_shortened() -> None:
    assert spans((2, 3, 4, 8)) == "2–4, 8"
    assert spans(()) == ""


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"selection": {"points": [{"customdata": "head:7"}]}}, (7,)),
        ({"selection": {"points": [{"customdata": ["head:7"]}]}}, (7,)),
        ({"selection": {"points": [{}, {"customdata": "head:2"}]}}, (2,)),
        ({"selection": {"points": [{"customdata": "pair:1:2"}]}}, None),
        ({"selection": {"points": [{"customdata": "head:x"}]}}, None),
        ({"selection": {"points": []}}, None),
        ({}, None),
        (None, None),
    ],
)
def test_picks(event: object, expected: tuple[int, ...] | None) -> None:
    assert picked(event, "head") == expected
