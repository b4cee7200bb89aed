"""Widgets that edit the draft recipe."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.components import recipe_summary
from app.components.recipe_fields import parameters, show_field, show_group
from app.components.widgets import described, drafted
from app.session import state
from pruning.artifacts.rules import LN2
from pruning.artifacts.shapes import ModelShape, footprint, full_widths
from pruning.presets import PRESETS, with_preset

TAU_START = 0.10
"""τ in nats when similarity is switched on; small models need less than the paper's 0.16."""

_TAU = "headroom.tau"
_PRESET = "prune.preset"
_SIZE = "prune.size"

KEPT_START = 0.8
"""Share kept when a budget is switched on."""

BUDGETS = {
    "blocks": "Share of the blocks' parameters",
    "model": "Share of all parameters",
    "megabytes": "Megabytes",
}


def rules(shape: ModelShape) -> None:
    """How much goes: a method to start from, similarity, ratios or a budget, block range."""
    _method()
    _similarity()
    by_budget = state.draft_recipe().budget.given
    st.session_state[_SIZE] = "Budget" if by_budget else "Ratios"
    st.segmented_control(
        "Size",
        ["Ratios", "Budget"],
        key=_SIZE,
        on_change=_size_changed,
        args=(state.edition(),),
        required=True,
        width="stretch",
        help="Ratios: the share of heads and of channels that goes. Budget: what may be left of "
        "the whole model; the sparsity allocation says where it is taken.",
    )
    if by_budget:
        _budget()
    else:
        _ratios(shape)
    _block_range(len(shape.blocks))


def _method() -> None:
    """A whole method at once; every setting can still be changed after."""

    edition = state.edition()

    def chosen() -> None:
        name = st.session_state[_PRESET]
        if name is not None and state.edition() == edition:
            state.replace_draft(with_preset(state.draft_recipe(), name))

    draft = state.draft_recipe()
    same = [entry.name for entry in PRESETS if with_preset(draft, entry.name) == draft]
    st.session_state[_PRESET] = same[0] if same else None
    st.selectbox(
        "Method",
        PRESETS.names(),
        key=_PRESET,
        on_change=chosen,
        placeholder="Your own settings",
        format_func=lambda name: PRESETS.entry(name).title,
        help=described(PRESETS, "Sets everything but the size, the text and the blocks."),
    )


def _size_changed(edition: int) -> None:
    if state.edition() != edition:
        return
    if st.session_state[_SIZE] == "Budget":
        state.set_draft(budget={"kept": KEPT_START, "of": "blocks", "megabytes": None})
    else:
        state.set_draft(budget={"kept": None, "megabytes": None})


def _budget() -> None:
    """Share of the parameters, or megabytes."""
    drafted(
        st.selectbox,
        "Budget",
        None,
        "budget",
        options=list(BUDGETS),
        format_func=BUDGETS.get,
        shown=lambda budget: "megabytes" if budget.megabytes is not None else budget.of,
        stored=_budget_of,
    )
    if state.draft_recipe().budget.megabytes is not None:
        drafted(
            st.number_input,
            "Megabytes",
            "budget",
            "megabytes",
            min_value=1.0,
            step=10.0,
            format="%.0f",
            help="Weights of the whole model in the number format that they are saved in.",
        )
    else:
        drafted(
            st.slider,
            "Parameters to keep",
            "budget",
            "kept",
            min_value=0.1,
            max_value=1.0,
            step=0.01,
            format="percent",
        )
    show_field("budget.spare_heads")


def _budget_of(choice: str) -> dict[str, Any]:
    before = state.draft_recipe().budget
    if choice == "megabytes":
        shape = state.current_measurement().shape
        whole = footprint(shape, full_widths(shape), 1).bytes / 1e6
        share = before.kept or KEPT_START
        return {"kept": None, "of": "blocks", "megabytes": round(share * whole)}
    return {"kept": before.kept or KEPT_START, "of": choice, "megabytes": None}


def _ratios(shape: ModelShape) -> None:
    show_field("heads.ratio")
    note = recipe_summary.group_note(shape, state.draft_recipe().heads.policy)
    if note:
        st.caption(note)
    show_field("ffn.ratio")


def _similarity() -> None:
    tau = state.draft_recipe().heads.threshold
    if tau is not None:
        st.session_state[_TAU] = tau
    drafted(
        st.toggle,
        "Remove heads that attend alike",
        "heads",
        "threshold",
        shown=lambda value: value is not None,
        stored=lambda on: st.session_state.get(_TAU, TAU_START) if on else None,
        help="Two heads are alike when the Jensen-Shannon divergence of their attention patterns "
        "is below τ; one of the two goes.",
    )
    with st.container():  # without it the expanders below move, and close, when τ comes or goes
        if tau is not None:
            _threshold()


def _threshold() -> None:
    drafted(
        st.slider,
        "Similarity threshold τ, in nats (natural log)",
        "heads",
        "threshold",
        min_value=0.005,
        max_value=LN2,
        step=0.005,
        format="%.3f",
        stored=lambda value: min(value, LN2),
        help="0 means the same pattern, ln 2 ≈ 0.693 means patterns that share nothing. A "
        "higher τ calls more heads alike.",
    )


def _block_range(blocks: int) -> None:
    """Blocks as first and last, both included: easier to read than a half-open range."""
    if blocks < 2:
        return
    key = "draft.blocks.range"
    chosen, edition = state.draft_recipe().blocks, state.edition()
    end = min(chosen.end or blocks, blocks)
    st.session_state[key] = (min(chosen.start, end - 1), end - 1)

    def changed() -> None:
        if state.edition() != edition:
            return
        first, last = st.session_state[key]
        stop = None if last == blocks - 1 else last + 1
        state.set_draft(blocks={"start": first, "end": stop})

    st.slider(
        "Blocks, first to last",
        0,
        blocks - 1,
        key=key,
        on_change=changed,
        help="Blocks outside this range lose nothing. The first and last blocks usually matter "
        "most; leaving them whole often helps.",
    )


def choosing(shape: ModelShape) -> None:
    """Criteria, pair rule, grouped-query policy, allocation."""
    grouped = any(block.attention.units_per_group > 1 for block in shape.blocks)
    show_group("choosing", hide=() if grouped else ("heads.policy",))


def recovery() -> None:
    """The recovery and, folded away, its switches."""
    show_group("method")
    with st.expander("Recovery settings"):
        show_group("recovery", hide=parameters("recovery.method"))


def tuning() -> None:
    """Training after the cut; its settings show once a method is chosen."""
    show_group("tuning")
    if state.draft_recipe().tune.method == "none":
        return
    show_group("training")
    st.caption(
        "*End to end*: this trains, which no method of the list above does. A run that is "
        "cancelled, or a server that ends, loses nothing: the same recipe goes on where it was."
    )
