"""Heads: which attention heads of a block say the same thing, and what τ would remove."""

from __future__ import annotations

from functools import partial

import numpy as np
import streamlit as st

from app.charts.divergence import divergence_alt, divergence_heatmap
from app.charts.graph import HeadNode, graph_alt, similarity_graph
from app.charts.overview import blocks_overview, overview_alt
from app.charts.sheet import ORDERS, ordered, sheet_alt, sheet_of_graphs
from app.charts.theme import chart_config, paper
from app.components.block_picker import block_slider
from app.components.csv_export import csv_row, head_rows, overview_rows, pair_rows
from app.components.recipe_summary import group_note
from app.components.staged_render import only_first_chart
from app.components.text import amount, size
from app.components.text import count as count_of
from app.components.widgets import drafted, page_header, show_problem
from app.pages import Page
from app.session.state import current_measurement, draft_recipe, set_draft
from app.views.heads import selection
from app.views.heads.attention_maps import show_patterns
from app.views.heads.explain import explain_head
from app.views.heads.preview import (
    FIRST_LOOK,
    counts_per_block,
    expected_losses,
    fingerprint,
    fixed_positions,
    head_nodes,
    preview,
    tiles,
)
from app.views.heads.selection import on_pick
from pruning.artifacts.measurement import Measurement
from pruning.artifacts.plan import Plan
from pruning.artifacts.recipe import LN2, Recipe
from pruning.planning.analysis import count_similar
from pruning.planning.similarity import edges

PAGE = Page("Heads", ":material/hub:", place=20, landing=True, jobs=("patterns",))

TAU = "heads.tau"
HEAD = "heads.head"
USE = "heads.use"
SEEN = "heads.seen_tau"
ORDER = "heads.order"

TAU_HELP = (
    "Two heads whose JS divergence is below τ are joined by an edge and count as alike: one of "
    "them may go. In nats (natural log), so 0 ≤ D ≤ ln 2 = 0.693. Larger τ, more edges."
)
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

LOSS_WORDS = (
    " Loss: what each block is expected to cost after a refit, in nats per token, each module "
    "looked at alone: attention plain, FFN hatched."
)
NO_LOSS_WORDS = (
    " The expected loss of each block joins this chart once the model is measured for *Least "
    "predicted loss* (Prune page, Sparsity allocation)."
)


def drawn_tau() -> float:
    """The recipe's τ, or the last one looked at while the recipe has none."""
    return draft_recipe().heads.threshold or st.session_state.get(SEEN, FIRST_LOOK)


def on_tau() -> None:
    """The slider writes the recipe, which the Prune page shows too; 0 switches τ off."""
    tau = round(st.session_state[TAU], 3)
    st.session_state[SEEN] = tau
    set_draft(heads={"threshold": min(tau, LN2) if tau > 0 else None})


def on_use() -> None:
    """Put τ into the recipe, or take it out and keep drawing it."""
    tau = drawn_tau()
    st.session_state[SEEN] = tau
    set_draft(heads={"threshold": tau if st.session_state[USE] and tau > 0 else None})


def controls() -> tuple[int, float]:
    """Block and τ."""
    left, middle, ratio, right = st.columns([3, 4, 3, 2], vertical_alignment="bottom", gap="medium")
    with left:
        block = block_slider("heads.block")
    with middle:
        st.session_state[TAU] = min(round(drawn_tau(), 3), 0.693)
        st.slider(
            "τ, nats (natural log)",
            0.0,
            0.693,
            step=0.001,
            format="%.3f",
            key=TAU,
            on_change=on_tau,
            help=TAU_HELP,
        )
    with ratio:
        drafted(
            st.slider,
            "Heads to remove",
            "heads",
            "ratio",
            min_value=0.0,
            max_value=0.9,
            step=0.01,
            format="percent",
            help="Share of the heads that must go in each block; what τ did not remove is filled "
            f"up with the lowest-scored heads. {_group_note()} Part of the recipe at once.",
        )
    with right:
        st.session_state[USE] = draft_recipe().heads.threshold is not None
        st.toggle(
            "Prune with this τ",
            key=USE,
            on_change=on_use,
            help="On: τ is part of the recipe that the Prune page runs. Moving τ switches it on. "
            "Off: this page still shows what τ would do.",
        )
    return block, drawn_tau()


def _group_note() -> str:
    return group_note(current_measurement().shape, draft_recipe().heads.policy)


def show_graph(measurement: Measurement, block: int, tau: float, nodes: list[HeadNode]) -> None:
    """The similarity graph of one block."""
    divergence = measurement.blocks[block].divergence
    pairs = edges(divergence, tau)
    apart = divergence[np.triu_indices(len(divergence), 1)]
    scale = (float(apart.min()), float(apart.max())) if len(apart) else (0.0, LN2)
    title, mode = st.columns([2, 3], vertical_alignment="center")
    title.markdown("**Alike heads**", help=TAU_HELP)
    with mode:
        selection.click_mode()
    st.plotly_chart(
        similarity_graph(
            fixed_positions(fingerprint(measurement), measurement)[block],
            pairs,
            nodes,
            scale=scale,
            selected=selection.selected_head(divergence),
            paper=paper(),
        ),
        key="heads.graph",
        on_select=lambda: on_pick("heads.graph"),
        selection_mode="points",
        config=chart_config("graph"),
        alt=graph_alt(block, pairs, nodes, tau),
    )


def show_map(divergence: np.ndarray, block: int, tau: float) -> None:
    """The divergence of every pair of one block's heads."""
    st.markdown("**Divergence of each pair**", help=DIVERGENCE_HELP)
    st.plotly_chart(
        divergence_heatmap(divergence, tau, selected=selection.selected_head(divergence)),
        key="heads.map",
        on_select=lambda: on_pick("heads.map"),
        selection_mode="points",
        config=chart_config("divergence"),
        alt=divergence_alt(block, divergence, tau),
    )


def show_count(divergence: np.ndarray, block: int, tau: float, plan: Plan) -> None:
    """What graph and map say in numbers, and how to read them."""
    count = count_similar(divergence, tau)
    gone, ffn = len(plan.blocks[block].attention.removed), plan.blocks[block].ffn
    st.caption(
        f"Block {block}: {amount(count.edges, 'edge')}, {amount(count.groups, 'group')} of alike "
        f"heads, {gone} of {len(divergence)} heads would go; {len(ffn.kept):,} of "
        f"{ffn.units:,} FFN channels stay. "
        "Edge: D < τ, thicker = more alike. Hollow with ✕: would go. Larger node: more important. "
        "Square frame: marked by hand. Dot in the map: D < τ. Click a head or a cell to pick it."
    )


def show_head(
    head: int, node: HeadNode, measurement: Measurement, block: int, recipe: Recipe, plan: Plan
) -> None:
    """The selected head explained."""
    with st.container(border=True):
        choice, words = st.columns([1, 5], gap="medium")
        with choice:
            st.session_state[HEAD] = head
            st.selectbox(
                "Head",
                range(len(measurement.blocks[block].divergence)),
                key=HEAD,
                on_change=lambda: selection.pick_head(st.session_state[HEAD]),
                format_func=lambda number: f"Head {number}",
                help=IMPORTANCE_HELP,
            )
            selection.mark_choice(block, head)
        lines = explain_head(
            head,
            measurement.blocks[block].divergence,
            node.rank,
            node.importance,
            plan.blocks[block].attention,
            measurement.shape.blocks[block].attention,
            recipe.heads,
        )
        words.markdown("\n".join(f"- {line}" for line in lines))


def _saved(plan: Plan) -> str:
    """What the whole draft would save."""
    before, after = plan.before, plan.after
    kept = sum(len(block.ffn.kept) for block in plan.blocks)
    channels = sum(block.ffn.units for block in plan.blocks)
    parameters = (
        f"{count_of(before.parameters - after.parameters)} of {count_of(before.parameters)}"
    )
    weights = f"{size(before.bytes - after.bytes)} of {size(before.bytes)}"
    return (
        f"With the FFN as the recipe on Prune has it (**{kept:,} of {channels:,} channels** stay), "
        f"**{parameters} parameters** and **{weights}** are saved."
    )


def show_overview(measurement: Measurement, block: int, head: int, tau: float, plan: Plan) -> None:
    """All blocks; a click opens one."""
    counts = counts_per_block(fingerprint(measurement), tau, measurement)
    gone = sum(len(b.attention.removed) for b in plan.blocks)
    total = sum(b.attention.units for b in plan.blocks)
    st.subheader("All blocks", anchor=False)
    st.markdown(
        f"At τ = {tau:.3f} nats: **{amount(sum(c.edges for c in counts), 'edge')}**, "
        f"**{amount(sum(c.groups for c in counts), 'group')}** of alike heads, "
        f"**{gone} of {total} heads** would go. {_saved(plan)}"
    )
    losses = expected_losses(measurement, plan)
    st.plotly_chart(
        blocks_overview(plan, counts, open_block=block, selected=head, losses=losses),
        key="heads.overview",
        on_select=lambda: on_pick("heads.overview"),
        selection_mode="points",
        config=chart_config("blocks"),
        alt=overview_alt(plan, counts),
    )
    st.caption(
        "Click a mark or a bar to open its block. ✕ alike: within τ of another head. "
        "○ weak: low importance, taken by the ratio or to make every key/value group give up as "
        "many. Groups: heads linked by edges." + (LOSS_WORDS if losses else NO_LOSS_WORDS)
    )


def show_sheet(measurement: Measurement, block: int, head: int, tau: float, plan: Plan) -> None:
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
    shown = ordered(tiles(measurement, tau, plan), chosen)
    st.plotly_chart(
        sheet_of_graphs(shown, tau, open_block=block, selected=head),
        key="heads.sheet",
        on_select=lambda: on_pick("heads.sheet"),
        selection_mode="points",
        config=chart_config("sheet"),
        alt=sheet_alt(shown, tau),
    )
    st.caption("Click a graph to open its block; its frame shows the one that is open.")


def show_numbers(measurement: Measurement, divergence: np.ndarray, tau: float, plan: Plan) -> None:
    """The charts' data to take along."""
    counts = counts_per_block(fingerprint(measurement), tau, measurement)
    losses = expected_losses(measurement, plan)
    csv_row(
        (partial(pair_rows, divergence), "divergence", "heads.divergence.csv"),
        (partial(overview_rows, plan, counts, losses), "blocks", "heads.blocks.csv"),
        (partial(head_rows, plan), "heads", "heads.heads.csv"),
    )


@st.fragment
def explorer() -> None:
    """Everything that follows τ, redrawn on its own so that the slider feels immediate."""
    measurement = current_measurement()
    block, tau = controls()
    show_problem()
    recipe, plan = preview(measurement, tau)
    divergence = measurement.blocks[block].divergence
    head = selection.selected_head(divergence)
    nodes = head_nodes(measurement, block, recipe, plan)
    left, right = st.columns(2, gap="medium")
    with left:
        show_graph(measurement, block, tau, nodes)
    if only_first_chart():
        return
    with right:
        show_map(divergence, block, tau)
    show_count(divergence, block, tau, plan)
    show_head(head, nodes[head], measurement, block, recipe, plan)
    selection.show_marks()
    with st.container(border=True):
        show_patterns(block, head)
    show_overview(measurement, block, head, tau, plan)
    show_sheet(measurement, block, head, tau, plan)
    show_numbers(measurement, divergence, tau, plan)


page_header(
    "Heads",
    "Heads whose attention patterns are nearly the same do the same work: one can stand for both.",
)
explorer()
