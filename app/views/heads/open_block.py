"""The open block: its graph, the divergence of its pairs, and the picked head in words."""

from __future__ import annotations

import networkx as nx
import numpy as np
import streamlit as st

from app import pages
from app.charts.divergence import divergence_alt, divergence_heatmap
from app.charts.graph import similarity_alt, similarity_chart
from app.components.chart import paper, show_figure
from app.components.text import amount
from app.views.heads import selection
from app.views.heads.controls import TAU_HELP
from app.views.heads.explain import explain_head
from pruning.artifacts.measurement import Measurement
from pruning.artifacts.plan import Plan
from pruning.artifacts.recipe import Recipe
from pruning.planning.graph import count_similar, leaving

HEAD = "heads.head"

DIVERGENCE_HELP = (
    "D is the Jensen-Shannon divergence between the attention patterns of two heads, averaged "
    "over all measured tokens. Natural log, so 0 ≤ D ≤ ln 2 = 0.693: 0 means that both look at "
    "the same tokens with the same weights."
)

IMPORTANCE_HELP = (
    "Importance is the score by which heads are ranked. The *second moment* says how much a head "
    "adds to the block's output on the measured text: the mean square of its activations, weighed "
    "by the output matrix."
)


def show_graph(graph: nx.Graph, head: int) -> None:
    """The similarity graph, ``head`` picked."""
    title, mode = st.columns([2, 3], vertical_alignment="center")
    title.markdown("**Alike heads**", help=TAU_HELP)
    with mode:
        selection.click_mode()
    drawn = similarity_chart(graph, selected=head, paper=paper())
    show_figure(drawn, similarity_alt(graph), "graph", "heads.graph", selection.on_pick)


def show_map(divergence: np.ndarray, block: int, head: int, tau: float) -> None:
    """The divergence of every pair of one block's heads."""
    st.markdown("**Divergence of each pair**", help=DIVERGENCE_HELP)
    drawn = divergence_heatmap(divergence, tau, selected=head)
    alt = divergence_alt(block, divergence, tau)
    show_figure(drawn, alt, "divergence", "heads.map", selection.on_pick)


def show_count(graph: nx.Graph, block: int, plan: Plan) -> None:
    """What graph and map say in numbers, and how to read them."""
    count, channels = count_similar(graph), plan.widths[block].channels
    st.caption(
        f"Block {block}: {amount(count.edges, 'edge')}, {amount(count.groups, 'group')} of alike "
        f"heads, {len(leaving(graph))} of {len(graph)} heads would go; {channels:,} of "
        f"{plan.blocks[block].ffn.units:,} FFN channels stay. "
        "Edge: D < τ, thicker = more alike. Hollow with ✕: would go. Larger node: more important. "
        "Square frame: marked by hand. Dot in the map: D < τ. Click a head or a cell to pick it."
    )


def show_head(
    head: int, graph: nx.Graph, measurement: Measurement, block: int, recipe: Recipe, plan: Plan
) -> None:
    """The selected head explained."""
    with st.container(border=True):
        choice, words = st.columns([1, 5], gap="medium")
        with choice:
            st.session_state[HEAD] = head
            st.selectbox(
                "Head",
                range(len(graph)),
                key=HEAD,
                on_change=lambda: selection.pick_head(st.session_state[HEAD]),
                format_func=lambda number: f"Head {number}",
                help=IMPORTANCE_HELP,
            )
            selection.mark_choice(block, head)
            pages.link("what_if", "Switch it off and see", {"off.heads": f"{block}.{head}"})
        lines = explain_head(
            head,
            graph,
            measurement.blocks[block].divergence,
            plan.blocks[block].attention,
            measurement.shape.blocks[block].attention,
            recipe.heads,
        )
        words.markdown("\n".join(f"- {line}" for line in lines))
