"""Widgets that edit the draft recipe."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.components import recipe_summary
from app.components.widgets import calibration_fields, choose, drafted
from app.session import state
from pruning.artifacts.recipe import LN2
from pruning.artifacts.shapes import ModelShape, footprint, full_widths
from pruning.criteria import CRITERIA
from pruning.planning.allocation import ALLOCATIONS
from pruning.presets import PRESETS, with_preset
from pruning.recovery import RECOVERIES
from pruning.registries import HEAD_POLICIES

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

DROPS = {"weaker": "The weaker one, by score", "first": "The first one (paper's Algorithm 2)"}
TARGETS = {"residual": "Output and the drift so far", "dense": "The dense module's output (paper)"}
INTERCEPTS = {"auto": "Only where the layer has a bias", "add": "Add a bias everywhere"}
SCOPES = {"all": "Every module after a cut", "pruned": "Only modules that lose units"}
COMPUTES = {
    "model": "The model's own number format",
    "bfloat16": "bfloat16",
    "auto": "bfloat16 where the hardware has units for it",
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
        required=True,
        width="stretch",
        help="Ratios: the share of heads and of channels that goes. Budget: what may be left of "
        "the whole model; where it is taken is for the spread over blocks to say.",
    )
    if by_budget:
        _budget()
    else:
        _ratios(shape)
    _block_range(len(shape.blocks))


def _method() -> None:
    """A whole method at once; every setting can still be changed after."""
    lines = "\n".join(f"- **{entry.title}**: {entry.summary}" for entry in PRESETS)

    def chosen() -> None:
        name = st.session_state[_PRESET]
        if name is not None:
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
        help=f"Sets everything but the size, the text and the blocks.\n\n{lines}",
    )


def _size_changed() -> None:
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
            help="Weights of the whole model in the dtype that is loaded.",
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
    drafted(
        st.checkbox,
        "Spare the heads",
        "budget",
        "spare_heads",
        help="Take all of it from the FFN channels. Heads hold few parameters, and with little "
        "calibration text they are the harder part to repair.",
    )


def _budget_of(choice: str) -> dict[str, Any]:
    before = state.draft_recipe().budget
    if choice == "megabytes":
        shape = state.current_measurement().shape
        whole = footprint(shape, full_widths(shape), 1).bytes / 1e6
        share = before.kept or KEPT_START
        return {"kept": None, "of": "blocks", "megabytes": round(share * whole)}
    return {"kept": before.kept or KEPT_START, "of": choice, "megabytes": None}


def _ratios(shape: ModelShape) -> None:
    drafted(
        st.slider,
        "Heads to remove",
        "heads",
        "ratio",
        min_value=0.0,
        max_value=0.9,
        step=0.01,
        format="percent",
        help="Share of attention heads that must go in each block. What similarity did not "
        "remove is filled up with the lowest-scored heads.",
    )
    note = recipe_summary.group_note(shape, state.draft_recipe().heads.policy)
    if note:
        st.caption(note)
    drafted(
        st.slider,
        "FFN channels to remove",
        "ffn",
        "ratio",
        min_value=0.0,
        max_value=0.9,
        step=0.01,
        format="percent",
        help="Share of the feed-forward network's inner channels that go in each block, lowest "
        "score first.",
    )


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
    chosen = state.draft_recipe().blocks
    end = min(chosen.end or blocks, blocks)
    st.session_state[key] = (min(chosen.start, end - 1), end - 1)

    def changed() -> None:
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
    intro = "How much a unit matters; the lowest go first."
    choose("Score for heads", CRITERIA, "heads", "score", intro=intro)
    choose("Score for FFN channels", CRITERIA, "ffn", "score", intro=intro)
    _pick(
        "Of two heads that are alike, remove",
        "heads",
        "drop",
        DROPS,
        help="Matters only when similarity is on.",
    )
    grouped = any(block.attention.units_per_group > 1 for block in shape.blocks)
    if grouped:
        _pick(
            "Grouped queries",
            "heads",
            "policy",
            {entry.name: entry.title for entry in HEAD_POLICIES},
            help="In this model several query heads share one key/value head. Whole groups can "
            "go, or the same number of query heads from every group; or the block is rewritten "
            "so that any heads can go, where that still saves parameters.",
        )
    choose("Spread over blocks", ALLOCATIONS, None, "allocation")
    drafted(
        st.number_input,
        "Round FFN widths to a multiple of",
        "ffn",
        "multiple",
        min_value=1,
        max_value=1024,
        step=8,
        help="Hardware runs odd widths slowly; 64 or 128 suits most.",
    )


def recovery() -> None:
    """The recovery and, folded away, its switches."""
    choose(
        "Recovery",
        RECOVERIES,
        "recovery",
        "method",
        intro="Recovery solves for new weights of the layers that stay, so that the block's "
        "output stays close to the dense one. No training.",
    )
    with st.expander("Recovery settings"):
        _pick(
            "Repair toward",
            "recovery",
            "target",
            TARGETS,
            help="The first also repairs the error that earlier cuts left.",
        )
        _damping()
        _pick("Modules to repair", "recovery", "scope", SCOPES)
        _pick(
            "Bias terms",
            "recovery",
            "intercept",
            INTERCEPTS,
            help="An added bias carries the mean of what was cut.",
        )
        drafted(
            st.number_input,
            "Samples for recovery",
            "recovery",
            "samples",
            min_value=1,
            max_value=65536,
            step=32,
            placeholder="as for calibration",
            help="Windows of the calibration text to solve on; empty means as many as for "
            "measuring. More give a better repair and take longer.",
        )
        _copies()
        _pick(
            "Multiply in",
            "recovery",
            "compute",
            COMPUTES,
            help="How the passes over the text are computed. bfloat16 is quicker "
            "on hardware made for it; weights and equations stay as they are.",
        )
        drafted(
            st.toggle,
            "Score again before each cut",
            "recovery",
            "rescore",
            help="Uses the weights as already repaired. What goes may then differ a little from "
            "the preview.",
        )


def _damping() -> None:
    drafted(
        st.toggle,
        "Choose damping by itself",
        "recovery",
        "damping",
        shown=lambda value: value == "auto",
        stored=lambda on: "auto" if on else 0.3,
        help="Damping holds the solution near the present weights. By itself: chosen per module "
        "on text held out from calibration.",
    )
    if state.draft_recipe().recovery.damping != "auto":
        drafted(
            st.number_input,
            "Damping",
            "recovery",
            "damping",
            min_value=0.0001,
            max_value=100.0,
            step=0.1,
            format="%.4f",
        )


def _copies() -> None:
    drafted(
        st.toggle,
        "Choose rewritten copies by itself",
        "recovery",
        "copies",
        shown=lambda value: value == "auto",
        stored=lambda on: "auto" if on else 3,
        help="More text for the repair without more data: copies of each sample in which the "
        "model has drawn half of the tokens anew. More give a better repair and take longer. By "
        "itself: as many as make about 320 windows.",
    )
    if state.draft_recipe().recovery.copies != "auto":
        drafted(
            st.number_input,
            "Rewritten copies of each sample",
            "recovery",
            "copies",
            min_value=0,
            max_value=64,
            step=1,
        )


def calibration() -> None:
    """What the run measures and repairs on."""
    calibration_fields()


def _pick(label: str, section: str, field: str, titles: dict[str, str], **options: Any) -> str:
    return drafted(
        st.selectbox, label, section, field, options=list(titles), format_func=titles.get, **options
    )
