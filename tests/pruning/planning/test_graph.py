"""The similarity graph in networkx: brute force beside it, and files that read back the same."""

from __future__ import annotations

import json
from itertools import combinations

import networkx as nx
import numpy as np
import pytest

from pruning.artifacts.measurement import Measurement
from pruning.artifacts.plan import BY_HAND
from pruning.artifacts.recipe import Recipe
from pruning.planning import make_plan
from pruning.planning.analysis import head_importance, nearest, ranks
from pruning.planning.graph import (
    GOES,
    STAYS,
    add_decisions,
    alike_groups,
    as_graphml,
    as_node_link,
    block_graph,
    clique_of,
    count_similar,
    leaving,
    model_graph,
    positions_of,
    ring_graph,
    similarity_graph,
)
from tests.helpers.synthetic import random_divergence

RECIPES = [
    {"heads": {"threshold": 0.1}},
    {"heads": {"threshold": 0.15, "policy": "kv_group"}},
    {"heads": {"ratio": 0.34}, "marks": {4: {"keep": [1], "drop": [0]}}},
]
ATTRIBUTES = {
    *("x", "y", "group", "nearest", "nearest_divergence", "component", "importance", "rank"),
    *("mark", "decision", "criterion", "reason", "partner"),
}


@pytest.fixture(scope="module")
def demo() -> Measurement:
    return Measurement.read("assets/demo-measurement.json.gz")


def drawn(demo: Measurement, rules: dict, block: int = 4) -> nx.Graph:
    recipe = Recipe().changed(**rules)
    return block_graph(demo, make_plan(demo, recipe), recipe, block, np.eye(9, 2))


def bare(divergence: np.ndarray, threshold: float) -> nx.Graph:
    return similarity_graph(divergence, threshold, np.zeros((len(divergence), 2)))


def by_brute_force(divergence: np.ndarray, threshold: float) -> list[tuple[int, ...]]:
    """Heads that can be reached from each other over pairs below the threshold."""
    reached = (divergence < threshold) | np.eye(len(divergence), dtype=bool)
    for _ in divergence:
        reached = reached @ reached
    return sorted({tuple(np.flatnonzero(row).tolist()) for row in reached if row.sum() > 1})


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("heads", [1, 9, 40])
def test_edges_groups_and_counts_agree_with_brute_force(heads: int, seed: int) -> None:
    divergence = random_divergence(heads, seed)
    threshold = 0.03 + 0.02 * seed
    graph = bare(divergence, threshold)
    pairs = {(i, j) for i, j in combinations(range(heads), 2) if divergence[i, j] < threshold}
    assert {tuple(sorted(edge)) for edge in graph.edges} == pairs
    assert all(value == divergence[i, j] for i, j, value in graph.edges(data="divergence"))
    assert list(alike_groups(graph)) == by_brute_force(divergence, threshold)
    count = count_similar(graph)
    assert (count.edges, count.groups) == (len(pairs), len(alike_groups(graph)))
    assert count.heads == len({head for pair in pairs for head in pair})


def test_a_chain_is_one_group_but_no_clique() -> None:
    divergence = np.full((5, 5), 0.5) - 0.5 * np.eye(5)
    for i, j in ((0, 1), (1, 2), (2, 3), (1, 3)):
        divergence[i, j] = divergence[j, i] = 0.05
    graph = bare(divergence, 0.1)
    assert alike_groups(graph) == ((0, 1, 2, 3),)
    assert [clique_of(graph, head) for head in graph] == [
        *((0, 1), (1, 2, 3), (1, 2, 3), (1, 2, 3)),
        (4,),
    ]
    assert not bare(divergence, 0.0).edges


@pytest.mark.parametrize("threshold", [0.1, 0.2, 0.3])
def test_cliques_agree_with_brute_force(threshold: float) -> None:
    divergence = random_divergence(9, 2)
    graph = bare(divergence, threshold)

    def all_alike(heads: tuple[int, ...]) -> bool:
        return all(divergence[i, j] < threshold for i, j in combinations(heads, 2))

    for head in range(9):
        sizes = [
            size
            for size in range(1, 10)
            for heads in combinations(range(9), size)
            if head in heads and all_alike(heads)
        ]
        clique = clique_of(graph, head)
        assert head in clique and all_alike(clique) and len(clique) == max(sizes)


def test_a_dense_graph_does_not_keep_anyone_waiting() -> None:
    """3 ** 20 cliques: every head is unlike two others only."""
    heads = np.arange(60)
    divergence = np.where(heads[:, None] // 3 == heads[None] // 3, 0.5, 0.01)
    np.fill_diagonal(divergence, 0.0)
    clique = clique_of(bare(divergence, 0.1), 7)
    assert len(clique) == 20 and 7 in clique


@pytest.mark.parametrize("rules", RECIPES)
def test_every_head_says_what_plan_and_measurement_say(demo: Measurement, rules: dict) -> None:
    recipe = Recipe().changed(**rules)
    plan = make_plan(demo, recipe)
    module, divergence = plan.blocks[4].attention, demo.blocks[4].divergence
    graph = drawn(demo, rules)
    importance = head_importance(demo, 4, recipe.heads.score)
    assert graph.graph["block"] == 4 and graph.graph["model"] == demo.model
    apart = divergence[np.triu_indices(9, 1)]
    assert graph.graph["smallest"] == apart.min() and graph.graph["largest"] == apart.max()
    assert tuple(leaving(graph)) == module.removed
    for head, node in graph.nodes(data=True):
        assert set(node) == ATTRIBUTES
        assert (node["x"], node["y"], node["group"]) == (*np.eye(9, 2)[head], head // 3)
        assert (node["importance"], node["rank"]) == (importance[head], ranks(importance)[head])
        assert (node["nearest"], node["nearest_divergence"]) == nearest(divergence, head)[0]
        assert node["component"] == min(nx.node_connected_component(graph, head))
        assert node["decision"] == (GOES if head in module.removed else STAYS)
        assert node["reason"] == (module.reason(head) or "")
        marks = recipe.marks.get(4)
        keep, drop = (marks.keep, marks.drop) if marks else ((), ())
        assert node["mark"] == ("keep" if head in keep else "drop" if head in drop else "")
        assert (node["criterion"] == BY_HAND) == (head in keep or head in drop)
        alike = node["criterion"] == "similarity"
        assert (node["partner"] >= 0) == alike
        if alike and not module.grouped:
            assert graph.has_edge(head, node["partner"])


def test_heads_of_a_group_that_goes_name_the_head_in_the_same_place(demo: Measurement) -> None:
    rules = {"heads": {"threshold": 0.3, "policy": "kv_group"}}
    plan = make_plan(demo, Recipe().changed(**rules))
    block = next(n for n, b in enumerate(plan.blocks) if "similarity" in b.attention.criteria)
    module, graph = plan.blocks[block].attention, drawn(demo, rules, block)
    for head, partner in zip(module.removed, module.partners, strict=True):
        if partner >= 0:
            assert graph.nodes[head]["partner"] == 3 * partner + head % 3


def test_tau_moves_edges_only(demo: Measurement) -> None:
    few, many = (drawn(demo, {"heads": {"threshold": tau}}) for tau in (0.05, 0.2))
    assert set(few.edges) < set(many.edges)
    assert (positions_of(few) == positions_of(many)).all()


def test_heads_of_unknown_likeness_stand_in_a_ring() -> None:
    graph = ring_graph(4)
    expected = [[0.5, 1.0], [1.0, 0.5], [0.5, 0.0], [0.0, 0.5]]
    np.testing.assert_allclose(positions_of(graph), expected, atol=1e-6)
    assert not graph.edges and not leaving(graph) and len(positions_of(ring_graph(0))) == 0


def same(found: nx.Graph, graph: nx.Graph) -> bool:
    return (
        dict(found.nodes(data=True)) == dict(graph.nodes(data=True))
        and nx.utils.edges_equal(found.edges(data=True), graph.edges(data=True))
        and found.graph.items() >= graph.graph.items()
    )


@pytest.mark.parametrize("rules", RECIPES)
def test_files_read_back_as_the_same_graph(demo: Measurement, rules: dict) -> None:
    graph = drawn(demo, rules)
    assert same(nx.parse_graphml(as_graphml(graph), node_type=int), graph)
    assert same(nx.node_link_graph(json.loads(as_node_link(graph)), edges="edges"), graph)


def test_all_blocks_are_one_graph_whose_nodes_name_block_and_head(demo: Measurement) -> None:
    graphs = [drawn(demo, RECIPES[0], block) for block in (3, 7)]
    whole = model_graph(graphs)
    assert "block" not in graphs[0].nodes[0]
    assert set(whole) == {f"{block}:{head}" for block in (3, 7) for head in range(9)}
    assert whole.number_of_edges() == sum(graph.number_of_edges() for graph in graphs)
    assert whole.nodes["7:2"]["importance"] == graphs[1].nodes[2]["importance"]
    assert whole.nodes["7:2"]["block"] == 7
    assert same(nx.parse_graphml(as_graphml(whole)), whole)
    assert same(nx.node_link_graph(json.loads(as_node_link(whole)), edges="edges"), whole)


def test_a_block_of_one_head_is_a_graph_too() -> None:
    graph = bare(np.zeros((1, 1)), 0.3)
    assert count_similar(graph).edges == 0 and clique_of(graph, 0) == (0,)
    assert same(nx.parse_graphml(as_graphml(graph), node_type=int), graph)


def test_decisions_are_told_once_more_from_the_start(demo: Measurement) -> None:
    graph = drawn(demo, RECIPES[0])
    nothing = make_plan(demo, Recipe()).blocks[4].attention
    assert not nothing.removed and not leaving(add_decisions(graph, nothing))
