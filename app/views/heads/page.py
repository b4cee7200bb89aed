"""Heads: which attention heads of a block say the same thing, and what τ would remove."""

from __future__ import annotations

import streamlit as st

from app.components.widgets import page_header, show_problem
from app.pages import Page
from app.session.state import current_measurement
from app.views.heads import selection
from app.views.heads.all_blocks import show_downloads, show_overview, show_sheet
from app.views.heads.attention_maps import show_patterns
from app.views.heads.controls import controls
from app.views.heads.open_block import show_count, show_graph, show_head, show_map
from app.views.heads.preview import graph_of, preview

PAGE = Page("Heads", ":material/hub:", place=20, landing=True, jobs=("patterns",))


@st.fragment
def explorer() -> None:
    """Everything that follows τ, redrawn on its own so that the slider feels immediate."""
    measurement = current_measurement()
    block, tau = controls()
    show_problem()
    recipe, plan = preview(measurement, tau)
    divergence = measurement.blocks[block].divergence
    head = selection.selected_head(divergence)
    graph = graph_of(measurement, block, recipe, plan)
    left, right = st.columns(2, gap="medium")
    with left:
        show_graph(graph, head)
    with right:
        show_map(divergence, block, head, tau)
    show_count(graph, block, plan)
    show_head(head, graph, measurement, block, recipe, plan)
    selection.show_marks()
    with st.container(border=True):
        show_patterns(block, head)
    graphs = [
        graph if index == block else graph_of(measurement, index, recipe, plan)
        for index in range(len(measurement.blocks))
    ]
    show_overview(graphs, measurement, block, head, plan)
    show_sheet(graphs, block, head)
    show_downloads(graphs, measurement, block, plan)


page_header(
    "Heads",
    "Heads whose attention patterns are nearly the same do the same work: one can stand for both.",
)
explorer()
