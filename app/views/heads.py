"""Heads: which attention heads of a block say the same thing, and what τ would remove."""

from __future__ import annotations

import numpy as np
import streamlit as st

from app.block_picker import block_slider, open_block
from app.charts.divergence import divergence_alt, divergence_heatmap
from app.charts.graph import HeadNode, graph_alt, similarity_graph
from app.charts.overview import blocks_overview, overview_alt
from app.charts.picks import picked
from app.charts.positions import node_positions
from app.explain import amount, explain_head
from app.state import current_measurement, draft_recipe, set_draft
from app.theme import PLAIN_CONFIG
from app.widgets import needs_measurement, page_header, show_problem
from pruning.criteria import SCORES
from pruning.criteria.similarity import edges
from pruning.errors import HeadroomError, NeedsMeasurement
from pruning.insight import SimilarityCount, count_similar, head_importance, nearest, ranks
from pruning.measurement import Measurement
from pruning.plan import Plan
from pruning.planning import block_range, make_plan
from pruning.recipe import LN2, Recipe

# τ that is drawn until the recipe has one
FIRST_LOOK = 0.10

TAU = "heads.tau"
HEAD = "heads.head"
USE = "heads.use"
SEEN = "heads.seen_tau"
PICK = "heads.pick"

TAU_HELP = (
    "Two heads whose JS divergence is below τ are joined by an edge and count as alike: one of "
    "them may go. In nats (natural log), so 0 ≤ D ≤ ln 2 = 0.693. Larger τ, more edges."
)
DIVERGENCE_HELP = (
    "D is the Jensen-Shannon divergence between the attention patterns of two heads, averaged "
    "over all measured tokens. Natural log, so 0 ≤ D ≤ ln 2 = 0.693: 0 means that both look at "
    "the same tokens with the same weights."
)


def fingerprint(measurement: Measurement) -> tuple:
    """What tells two measurements apart, for caches."""
    m = measurement
    return (
        m.model,
        m.revision,
        m.dtype,
        m.corpus_fingerprint,
        m.samples,
        m.seq_len,
        m.seed,
        m.seconds,
    )


@st.cache_data(show_spinner=False, max_entries=512)
def fixed_positions(key: tuple, block: int, _measurement: Measurement) -> np.ndarray:
    """Node positions of one block; they do not know τ."""
    return node_positions(_measurement.blocks[block].divergence)


@st.cache_data(show_spinner=False, max_entries=64)
def counts_per_block(
    key: tuple, threshold: float, _measurement: Measurement
) -> list[SimilarityCount]:
    """Edges and groups of every block at one τ."""
    return [count_similar(block.divergence, threshold) for block in _measurement.blocks]


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


def on_pick(chart: str) -> None:
    """Keep what was clicked: a chart forgets its selection when its figure changes."""
    event = st.session_state.get(chart)
    if block := picked(event, "block"):
        open_block(block[0])
    # a mark of the overview names its head after its block
    if head := picked(event, "head") or picked(event, "pair") or (block or ())[1:]:
        st.session_state[PICK] = head[0]


def selected_head(divergence: np.ndarray) -> int:
    """The picked head; before any pick, one of the most alike pair of the block."""
    pick = st.session_state.get(PICK)
    if pick is not None and pick < len(divergence):
        return pick
    apart = divergence + 2 * np.eye(len(divergence))
    return int(np.unravel_index(apart.argmin(), apart.shape)[0])


def controls() -> tuple[int, float]:
    """Block and τ."""
    left, middle, right = st.columns([3, 4, 2], vertical_alignment="bottom", gap="large")
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


def preview(measurement: Measurement, tau: float) -> tuple[Recipe, Plan]:
    """The draft with the drawn τ and its plan, so that fates follow the recipe's other rules."""
    recipe = draft_recipe().changed(heads={"threshold": tau if tau > 0 else None})
    try:
        block_range(recipe, len(measurement.blocks))
    except HeadroomError as error:  # meant for another model
        st.warning(f"{error} Until then this page counts every block.")
        recipe = recipe.changed(blocks={"start": 0, "end": None})
    try:
        return recipe, make_plan(measurement, recipe)
    except NeedsMeasurement as error:
        usual = Recipe()
        st.warning(
            f"{needs_measurement(error)} Until then this page ranks heads by "
            f"{SCORES.entry(usual.heads.score).title}."
        )
        scores = {kind: {"score": getattr(usual, kind).score} for kind in ("heads", "ffn")}
        recipe = recipe.changed(**scores, allocation=usual.allocation)
        return recipe, make_plan(measurement, recipe)


def head_nodes(measurement: Measurement, block: int, recipe: Recipe, plan: Plan) -> list[HeadNode]:
    """What the graph says about each head."""
    divergence = measurement.blocks[block].divergence
    importance = head_importance(measurement, block, recipe.heads.score, recipe.seed)
    places = ranks(importance)
    per_group = measurement.shape.blocks[block].attention.units_per_group
    reasons = plan.blocks[block].attention.reasons()
    nodes = []
    for head in range(len(divergence)):
        near = nearest(divergence, head)[:1] or [(None, None)]
        nodes.append(
            HeadNode(
                head,
                head // per_group,
                float(importance[head]),
                int(places[head]),
                *near[0],
                reasons.get(head),
            )
        )
    return nodes


def show_block(
    measurement: Measurement, block: int, tau: float, recipe: Recipe, plan: Plan
) -> None:
    """Graph and heatmap of one block side by side, then the selected head in words."""
    divergence = measurement.blocks[block].divergence
    selected = selected_head(divergence)
    pairs = edges(divergence, tau)
    nodes = head_nodes(measurement, block, recipe, plan)
    apart = divergence[np.triu_indices(len(divergence), 1)]
    scale = (float(apart.min()), float(apart.max())) if len(apart) else (0.0, LN2)
    left, right = st.columns(2, gap="medium")
    with left:
        st.markdown("**Alike heads**", help=TAU_HELP)
        st.plotly_chart(
            similarity_graph(
                fixed_positions(fingerprint(measurement), block, measurement),
                pairs,
                nodes,
                scale=scale,
                selected=selected,
            ),
            key="heads.graph",
            on_select=lambda: on_pick("heads.graph"),
            selection_mode="points",
            config=PLAIN_CONFIG,
            alt=graph_alt(block, pairs, nodes, tau),
        )
    with right:
        st.markdown("**Divergence of each pair**", help=DIVERGENCE_HELP)
        st.plotly_chart(
            divergence_heatmap(divergence, tau, selected=selected),
            key="heads.map",
            on_select=lambda: on_pick("heads.map"),
            selection_mode="points",
            config=PLAIN_CONFIG,
            alt=divergence_alt(block, divergence, tau),
        )
    count = count_similar(divergence, tau)
    gone = len(plan.blocks[block].attention.removed)
    st.caption(
        f"Block {block}: {amount(count.edges, 'edge')}, {amount(count.groups, 'group')} of alike "
        f"heads, {gone} of {len(divergence)} heads would go. "
        "Edge: D < τ, thicker = more alike. Hollow with ✕: would go. Larger node: more important. "
        "Dot in the map: D < τ. Click a head or a cell to read about it; nodes never move with τ."
    )
    show_head(selected, nodes[selected], measurement, block, recipe, plan)


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
                on_change=lambda: st.session_state.update({PICK: st.session_state[HEAD]}),
                format_func=lambda number: f"Head {number}",
            )
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


def show_overview(measurement: Measurement, block: int, tau: float, plan: Plan) -> None:
    """All blocks; a click opens one."""
    counts = counts_per_block(fingerprint(measurement), tau, measurement)
    gone = sum(len(b.attention.removed) for b in plan.blocks)
    total = sum(b.attention.units for b in plan.blocks)
    st.subheader("All blocks", anchor=False)
    st.markdown(
        f"At τ = {tau:.3f} nats: **{amount(sum(c.edges for c in counts), 'edge')}**, "
        f"**{amount(sum(c.groups for c in counts), 'group')}** of alike heads, "
        f"**{gone} of {total} heads** would go."
    )
    st.plotly_chart(
        blocks_overview(plan, counts, open_block=block),
        key="heads.overview",
        on_select=lambda: on_pick("heads.overview"),
        selection_mode="points",
        config=PLAIN_CONFIG,
        alt=overview_alt(plan, counts),
    )
    st.caption(
        "Click a mark or a bar to open its block. ✕ alike: within τ of another head. "
        "○ weak: low importance, taken by the ratio or to make every key/value group give up as "
        "many. Groups: heads linked by edges."
    )


@st.fragment
def explorer() -> None:
    """Everything that follows τ, redrawn on its own so that the slider feels immediate."""
    measurement = current_measurement()
    block, tau = controls()
    show_problem()
    recipe, plan = preview(measurement, tau)
    show_block(measurement, block, tau, recipe, plan)
    show_overview(measurement, block, tau, plan)


page_header(
    "Heads",
    "Heads whose attention patterns are nearly the same do the same work: one can stand for both.",
)
explorer()
