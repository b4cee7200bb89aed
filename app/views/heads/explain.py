"""Numbers in words: why a head stays or goes, runs of blocks."""

from __future__ import annotations

import networkx as nx
import numpy as np

from pruning.artifacts.plan import ModulePlan
from pruning.artifacts.rules import HeadRule
from pruning.artifacts.shapes import ModuleShape
from pruning.criteria import CRITERIA
from pruning.planning.analysis import nearest
from pruning.planning.graph import GOES, STAYS, clique_of

NEIGHBOURS = 3


def explain_head(
    head: int,
    graph: nx.Graph,
    divergence: np.ndarray,
    module: ModulePlan,
    shape: ModuleShape,
    rule: HeadRule,
) -> list[str]:
    """Sentences (Markdown) about ``head`` of the block's ``graph``: neighbours, importance,
    company, fate. ``divergence`` [heads, heads] (nats) also tells of pairs that are not alike."""
    node = graph.nodes[head]
    lines = [
        _neighbours(divergence, head, graph),
        *_clique(head, graph),
        (
            f"**Importance** {node['importance']:.3g} by *{CRITERIA.entry(rule.score).title}*: "
            f"rank {node['rank']} of {shape.units} in its block (1 = weakest)."
        ),
    ]
    if shape.units_per_group > 1:
        lines.append(_company(head, shape))
    if head in module.held:
        lines.append("**It would stay:** marked keep by hand.")
    elif node["decision"] == GOES:
        left = surviving_neighbours(head, graph, module)
        lines.append(f"**✕ It would go:** {node['reason']}.{left}")
    else:
        lines.append(f"**It would stay:** {_why_kept(head, graph, module, shape, rule)}")
    return lines


def _neighbours(divergence: np.ndarray, head: int, graph: nx.Graph) -> str:
    near = nearest(divergence, head)
    if not near:
        return "It is the only head of its block."
    parts = [
        f"head {other} ({value:.3f}{', below τ' if other in graph[head] else ''})"
        for other, value in near[:NEIGHBOURS]
    ]
    below = graph.degree[head]
    return (
        f"**Nearest heads**, JS divergence in nats: {', '.join(parts)}. "
        f"{below or 'None'} of {len(near)} {'is' if below == 1 else 'are'} below τ."
    )


def _clique(head: int, graph: nx.Graph) -> list[str]:
    """Who says the same as ``head`` and as each other, when there are three or more."""
    clique = clique_of(graph, head)
    if len(clique) < 3:
        return []
    names = ", ".join(map(str, clique[:-1]))
    return [f"**All alike**, every pair below τ: heads {names} and {clique[-1]}."]


def _company(head: int, shape: ModuleShape) -> str:
    per_group = shape.units_per_group
    group = head // per_group
    others = [u for u in range(group * per_group, (group + 1) * per_group) if u != head]
    return f"**Key/value group** {group}, shared with {_named(others)}."


def _named(heads: list[int]) -> str:
    """``head 3``, ``heads 3, 4``."""
    return f"head{'' if len(heads) == 1 else 's'} {', '.join(map(str, heads))}"


def surviving_neighbours(head: int, graph: nx.Graph, module: ModulePlan) -> str:
    """When the head it is like goes too, say which alike heads are left."""
    partner = graph.nodes[head]["partner"]
    if module.grouped or partner not in module.removed:
        return ""
    near = sorted(graph[head], key=lambda other: graph[head][other]["divergence"])
    left = [other for other in near if graph.nodes[other]["decision"] == STAYS]
    if not left:
        return f" Head {partner} goes as well, and no other head within τ stays."
    stay = "stays" if len(left) == 1 else "stay"
    return f" Head {partner} goes as well; {_named(left)}, also within τ, {stay}."


def _why_kept(
    head: int, graph: nx.Graph, module: ModulePlan, shape: ModuleShape, rule: HeadRule
) -> str:
    below = set(graph[head])
    partners = {} if module.grouped else nx.get_node_attributes(graph, "partner")
    spoken_for = [unit for unit, partner in partners.items() if partner == head]
    if spoken_for:
        which = "stronger" if rule.drop == "weaker" else "later"
        pair = "the two" if len(spoken_for) == 1 else "each pair"
        return f"it stands for {_named(spoken_for)} as the {which} of {pair}."
    if shape.units_per_group > 1 and rule.policy == "kv_group":
        return "heads go by whole key/value groups, and its group is not one of them."
    if below and below <= set(module.removed):
        return "the heads it resembles go already, so this one stays to speak for them."
    if below and shape.units_per_group > 1:
        return (
            "every key/value group gives up the same number of heads, and its group has given "
            "its share."
        )
    if below:
        return "the heads it resembles are each settled with another head."
    if rule.ratio > 0:
        return "no head is within τ of it, and weaker heads fill the ratio."
    return "no head is within τ of it."
