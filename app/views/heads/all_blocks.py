"""All blocks: the overview, the graphs on one sheet, and exports of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import networkx as nx
import streamlit as st

from app.charts.chart import Row
from app.charts.divergence import pair_rows
from app.charts.overview import blocks_overview, overview_alt, overview_rows
from app.charts.plan_map import head_rows
from app.charts.sheet import ORDERS, ordered, sheet_alt, sheet_of_graphs
from app.components.chart import show_figure
from app.components.csv_export import csv_row
from app.components.text import amount, size
from app.components.text import count as count_of
from app.views.heads.controls import TAU_HELP
from app.views.heads.preview import losses_per_block
from app.views.heads.selection import on_pick
from pruning.artifacts.measurement import Measurement
from pruning.artifacts.plan import Plan
from pruning.planning.allocation import ALLOCATIONS
from pruning.planning.graph import as_graphml, as_node_link, count_similar, leaving, model_graph

ORDER = "heads.order"
KINDS = {"graphml": "application/graphml+xml", "json": "application/json"}
LOSS_WORDS = (
    " Loss: what each module costs by its loss curve, after a refit and looked at alone, in nats "
    "per token: attention plain, FFN hatched."
)
NO_LOSS_WORDS = (
    " The loss of each block joins this chart once loss curves are measured (Prune page, Sparsity "
    "allocation: *{}*)."
)


def show_overview(
    graphs: Sequence[nx.Graph], measurement: Measurement, block: int, head: int, plan: Plan
) -> None:
    """All blocks; a click opens one."""
    counts = [count_similar(graph) for graph in graphs]
    gone, total = sum(len(leaving(graph)) for graph in graphs), sum(map(len, graphs))
    st.subheader("All blocks", anchor=False)
    st.markdown(
        f"At τ = {graphs[0].graph['threshold']:.3f} nats: "
        f"**{amount(sum(c.edges for c in counts), 'edge')}**, "
        f"**{amount(sum(c.groups for c in counts), 'group')}** of alike heads, "
        f"**{gone} of {total} heads** would go. {_saved(plan)}"
    )
    losses = losses_per_block(measurement, plan)
    drawn = blocks_overview(plan, counts, open_block=block, selected=head, losses=losses)
    show_figure(drawn, overview_alt(plan, counts), "blocks", "heads.overview", on_pick)
    st.caption(
        "Click a mark or a bar to open its block. ✕ alike: within τ of another head. "
        "○ weak: low importance, taken by the ratio or to make every key/value group give up as "
        "many. Groups: heads linked by edges."
        + (LOSS_WORDS if losses else NO_LOSS_WORDS.format(ALLOCATIONS.entry("predicted").title))
    )


def _saved(plan: Plan) -> str:
    """What the whole draft would save."""
    before, after = plan.before, plan.after
    kept = sum(width.channels for width in plan.widths)
    channels = sum(block.ffn.units for block in plan.blocks)
    parameters = (
        f"{count_of(before.parameters - after.parameters)} of {count_of(before.parameters)}"
    )
    weights = f"{size(before.bytes - after.bytes)} of {size(before.bytes)}"
    return (
        f"With the FFN as the recipe on Prune has it (**{kept:,} of {channels:,} channels** stay), "
        f"**{parameters} parameters** and **{weights}** are saved."
    )


def show_sheet(graphs: Sequence[nx.Graph], block: int, head: int) -> None:
    """The graphs of all blocks side by side; a click opens one."""
    title, order = st.columns([3, 2], vertical_alignment="center")
    title.markdown("**All graphs on one sheet**", help=TAU_HELP)
    with order:
        chosen = st.segmented_control(
            "Order",
            list(ORDERS),
            key=ORDER,
            default="block",
            required=True,
            format_func=ORDERS.get,
            label_visibility="collapsed",
        )
    shown = ordered(graphs, chosen)
    drawn = sheet_of_graphs(shown, open_block=block, selected=head)
    show_figure(drawn, sheet_alt(shown), "sheet", "heads.sheet", on_pick)
    st.caption("Click a graph to open its block; its frame shows the one that is open.")


def show_downloads(
    graphs: Sequence[nx.Graph], measurement: Measurement, block: int, plan: Plan
) -> None:
    """The charts' data to export: tables as CSV, graphs as GraphML and node-link JSON."""

    def rows_of_blocks() -> list[Row]:
        counts = [count_similar(graph) for graph in graphs]
        return overview_rows(plan, counts, losses_per_block(measurement, plan))

    divergence = measurement.blocks[block].divergence
    csv_row(
        (partial(pair_rows, divergence), "divergence", "heads.divergence.csv"),
        (rows_of_blocks, "blocks", "heads.blocks.csv"),
        (partial(head_rows, plan), "heads", "heads.heads.csv"),
    )
    st.caption(
        "The similarity graphs with all that is said of their heads: GraphML for Gephi, Cytoscape "
        "or yEd, JSON for d3, both for networkx."
    )
    with st.container(horizontal=True):
        for name, make in (
            (f"block-{block}", lambda: graphs[block]),
            ("all-blocks", partial(model_graph, graphs)),
        ):
            _graph_button(name, "graphml", make, as_graphml)
            _graph_button(name, "json", make, as_node_link)


def _graph_button(
    name: str, kind: str, make: Callable[[], nx.Graph], write: Callable[[nx.Graph], str]
) -> None:
    """Download the graph of ``make()`` as ``name.kind``, written only when it is pressed."""
    st.download_button(
        f"{name}.{kind}",
        lambda: write(make()),
        f"{name}.{kind}",
        KINDS[kind],
        key=f"heads.{name.split('-')[0]}.{kind}",
        on_click="ignore",
        icon=":material/hub:",
        type="tertiary",
    )
