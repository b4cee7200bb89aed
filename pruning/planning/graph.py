"""The similarity graph of a block in networkx: heads are nodes, pairs below τ are edges.

Attributes of the graph: ``model``, ``block``, ``threshold`` (τ), ``smallest`` and ``largest``
divergence of the block. Of an edge: ``divergence``. All divergences are in nats.

Attributes of a node: ``x``, ``y`` in the unit square, which do not know τ; ``group`` (key/value
head); ``nearest`` (the most alike other head) and ``nearest_divergence``; ``component`` (the first
head of those that edges lead to); ``importance`` by the recipe's criterion and ``rank`` (1 =
weakest); ``mark`` by hand (``keep``, ``drop`` or empty); ``decision`` (``stays`` or ``goes``), the
``criterion`` that made it (empty where nothing asks a head to go) and the ``reason`` in words;
``partner``, the head for whose likeness it goes, or -1. All are plain numbers and text, so that
GraphML can hold them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice

import networkx as nx
import numpy as np

from pruning.artifacts.measurement import Measurement
from pruning.artifacts.plan import BY_HAND, SIMILARITY, ModulePlan, Plan
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.rules import Marks
from pruning.planning.analysis import SimilarityCount, head_importance, ranks
from pruning.planning.similarity import edges

STAYS, GOES = "stays", "goes"
KEEP, DROP = "keep", "drop"
CLIQUES = 1000
"""Cliques of one head that are looked at: a dense graph has more than anyone can wait for."""


def similarity_graph(
    divergence: np.ndarray, threshold: float, positions: np.ndarray, **attributes: str | int
) -> nx.Graph[int]:
    """Heads at ``positions`` [heads, 2], joined where ``divergence`` [heads, heads] (nats) is below
    ``threshold``; ``attributes`` are those of the whole graph."""
    graph: nx.Graph[int] = nx.Graph()
    graph.graph.update(threshold=float(threshold), **attributes)
    graph.add_nodes_from(range(len(divergence)))
    graph.add_weighted_edges_from(edges(divergence, threshold), weight="divergence")
    _place(graph, positions)
    if len(divergence) > 1:
        apart = divergence.astype(np.float64)
        np.fill_diagonal(apart, np.inf)
        _set(graph, "nearest", apart.argmin(axis=1))
        _set(graph, "nearest_divergence", apart.min(axis=1))
        graph.graph["smallest"] = float(apart.min())
        graph.graph["largest"] = float(divergence.max())
    return graph


def ring_graph(count: int) -> nx.Graph[int]:
    """``count`` heads of unknown likeness, clockwise from the top."""
    graph = nx.empty_graph(count)
    ring = nx.circular_layout(graph, scale=0.5, center=(0.5, 0.5))
    _place(graph, np.array([ring[head][::-1] for head in graph]).reshape(count, 2))
    return graph


def add_decisions(graph: nx.Graph[int], module: ModulePlan) -> nx.Graph[int]:
    """Say in ``graph`` which heads go by ``module``, and why; returns the same graph."""
    per_group = module.units // module.groups if module.grouped and module.groups else 1
    reasons = module.reasons()
    for head, node in graph.nodes(data=True):
        held = BY_HAND if head in module.held else ""
        node.update(decision=STAYS, criterion=held, reason="", partner=-1)
    for head, criterion, partner in zip(
        module.removed, module.criteria, module.partners, strict=True
    ):
        node = graph.nodes[head]
        node.update(decision=GOES, criterion=criterion, reason=reasons[head])
        if criterion == SIMILARITY and partner >= 0:
            # groups that go whole have a group for partner
            node["partner"] = partner * per_group + head % per_group
    return graph


def block_graph(
    measurement: Measurement,
    plan: Plan,
    recipe: Recipe,
    block: int,
    positions: np.ndarray,
    marks: Marks | None = None,
) -> nx.Graph[int]:
    """The graph of one block at the recipe's τ with everything that the module's docstring names.

    ``marks``: those to show, the recipe's unless given. Raises NeedsMeasurement where the recipe's
    criterion was not measured.
    """
    divergence = measurement.blocks[block].divergence
    threshold = recipe.heads.threshold or 0.0
    graph = similarity_graph(divergence, threshold, positions, model=measurement.model, block=block)
    importance = head_importance(measurement, block, recipe.heads.score, recipe.seed)
    per_group = measurement.shape.blocks[block].attention.units_per_group
    marks = recipe.marks.get(block, Marks()) if marks is None else marks
    _set(graph, "group", np.arange(len(divergence)) // per_group)
    _set(graph, "importance", importance)
    _set(graph, "rank", ranks(importance))
    nx.set_node_attributes(graph, dict.fromkeys(graph, ""), "mark")
    for mark, heads in ((KEEP, marks.keep), (DROP, marks.drop)):
        nx.set_node_attributes(graph, dict.fromkeys(heads, mark), "mark")
    components = [dict.fromkeys(group, min(group)) for group in nx.connected_components(graph)]
    first = {head: start for component in components for head, start in component.items()}
    nx.set_node_attributes(graph, first, "component")
    return add_decisions(graph, plan.blocks[block].attention)


def model_graph(graphs: Sequence[nx.Graph[int]]) -> nx.Graph[int]:
    """The graphs of several blocks as one; its nodes are called ``block:head``."""
    blocks = [graph.graph["block"] for graph in graphs]
    whole = nx.union_all(graphs, rename=[f"{block}:" for block in blocks])
    for block, graph in zip(blocks, graphs, strict=True):
        nx.set_node_attributes(whole, {f"{block}:{head}": block for head in graph}, "block")
    whole.graph = {name: graphs[0].graph[name] for name in ("model", "threshold")}
    return whole


def as_graphml(graph: nx.Graph[int]) -> str:
    """``graph`` as GraphML, which Gephi, yEd, Cytoscape and networkx read."""
    return "\n".join(nx.generate_graphml(graph, named_key_ids=True))


def as_node_link(graph: nx.Graph[int]) -> str:
    """``graph`` as node-link JSON, which networkx and d3 read."""
    return json.dumps(nx.node_link_data(graph, edges="edges"), allow_nan=False)


def positions_of(graph: nx.Graph[int]) -> np.ndarray:
    """Positions [heads, 2] of the nodes."""
    places = [(node["x"], node["y"]) for _, node in graph.nodes(data=True)]
    return np.array(places, dtype=np.float64).reshape(-1, 2)


def leaving(graph: nx.Graph[int]) -> list[int]:
    """Heads that go."""
    return [head for head, node in graph.nodes(data=True) if node.get("decision") == GOES]


def alike_groups(graph: nx.Graph[int]) -> tuple[tuple[int, ...], ...]:
    """Connected components of two or more heads."""
    groups = (tuple(sorted(group)) for group in nx.connected_components(graph))
    return tuple(sorted(group for group in groups if len(group) > 1))


def count_similar(graph: nx.Graph[int]) -> SimilarityCount:
    """Edges and groups of ``graph``."""
    groups = alike_groups(graph)
    return SimilarityCount(graph.number_of_edges(), len(groups), sum(map(len, groups)))


def clique_of(graph: nx.Graph[int], head: int) -> tuple[int, ...]:
    """A largest clique with ``head``: heads that are all alike, pair by pair, not only by way of
    others. In a very dense graph the largest of the first ``CLIQUES``."""
    around = graph.subgraph([head, *graph[head]])
    cliques = [sorted(clique) for clique in islice(nx.find_cliques(around, nodes=[head]), CLIQUES)]
    best: list[int] = max(cliques, key=lambda clique: (len(clique), [-unit for unit in clique]))
    return tuple(best)


def _place(graph: nx.Graph[int], positions: np.ndarray) -> None:
    _set(graph, "x", positions[:, 0])
    _set(graph, "y", positions[:, 1])


def _set(graph: nx.Graph[int], name: str, values: np.ndarray) -> None:
    """One value [heads] per node, as a plain number."""
    nx.set_node_attributes(graph, dict(enumerate(values.tolist())), name)
