"""What if: heads, FFN channels and blocks of the loaded model switched off, and what that does."""

from __future__ import annotations

import streamlit as st

from app.charts.ablation import unit_map
from app.components.chart import show_chart
from app.components.widgets import page_header, show_problem
from app.pages import Page
from app.session.state import current_measurement, draft_recipe
from app.views.what_if import answer, asking, one_by_one, recipe_panel, selection
from pruning.artifacts.ablation import Ablation
from pruning.artifacts.measurement import Measurement
from pruning.artifacts.recipe import Recipe
from pruning.planning.analysis import head_importance, ranks
from pruning.utils.errors import NeedsMeasurement

PAGE = Page("What if", ":material/toggle_off:", place=25, jobs=("what_if", "each_head"))


def show_map(off: Ablation) -> None:
    """Every head, FFN and block; a click switches it off or on."""
    measured, recipe = current_measurement(), draft_recipe()
    title, clear = st.columns([3, 1], vertical_alignment="center")
    title.markdown("**Click to switch off, click again to switch on**")
    with clear:
        st.button(
            "All on",
            key="what_if.clear",
            icon=":material/restart_alt:",
            on_click=selection.clear,
            disabled=off.is_empty,
        )
    chart = unit_map(measured.shape, off, importance_ranks(measured, recipe))
    options = {"on_select": lambda: selection.on_pick("what_if.map"), "selection_mode": "points"}
    show_chart(chart, "what-if", "what_if.map", **options)
    if any(block.attention.units_per_group > 1 for block in measured.shape.blocks):
        st.toggle(
            "A click takes all heads of a key/value group",
            key=selection.GROUPS,
            persist_state="session",
        )
    selection.lists()


def importance_ranks(measured: Measurement, recipe: Recipe) -> list[list[int]]:
    """Places of the heads of each block by the recipe's criterion, or by the usual one where that
    was not measured."""
    blocks = range(len(measured.blocks))
    try:
        scores = [head_importance(measured, b, recipe.heads.score, recipe.seed) for b in blocks]
    except NeedsMeasurement:
        scores = [head_importance(measured, b, Recipe().heads.score) for b in blocks]
    return [ranks(values).tolist() for values in scores]


def main() -> None:
    page_header(
        "What if",
        "Switch heads, FFN channels or whole blocks of the loaded model off and see what that "
        "changes. Nothing is cut, nothing is repaired.",
    )
    selection.follow()
    asked = asking.question()
    show_problem()
    off = selection.switched_off()
    left, right = st.columns([6, 5], gap="large")
    with left:
        show_map(off)
    with right:
        found = answer.show(off, asked)
        if not off.is_empty:
            recipe_panel.show(off)
    if found is not None:
        answer.show_text(found)
    one_by_one.show(asked)


main()
