"""Which block is open and what τ is: the controls of the Heads page."""

from __future__ import annotations

import streamlit as st

from app.components.block_picker import block_slider
from app.components.recipe_summary import group_note
from app.components.widgets import drafted
from app.session.state import current_measurement, draft_recipe, set_draft
from app.views.heads.preview import FIRST_LOOK
from pruning.artifacts.rules import LN2

TAU = "heads.tau"
USE = "heads.use"
SEEN = "heads.seen_tau"

TAU_HELP = (
    "Two heads whose JS divergence is below τ are joined by an edge and count as alike: one of "
    "them may go. In nats (natural log), so 0 ≤ D ≤ ln 2 = 0.693. Larger τ, more edges."
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
            disabled=draft_recipe().budget.given,  # which takes the place of ratios
            help="Share of the heads that must go in each block; what τ did not remove is filled "
            f"up with the lowest-scored heads. {_group_note()} Part of the recipe at once. Under a "
            "budget (see Prune) the sparsity allocation decides.",
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
