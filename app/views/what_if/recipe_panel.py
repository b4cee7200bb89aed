"""From what is off to the recipe: marks of heads, ratios of blocks by hand."""

from __future__ import annotations

import streamlit as st

from app import pages
from app.components.recipe_summary import group_note
from app.session.state import current_measurement, draft_recipe, set_draft
from pruning.artifacts.ablation import Ablation
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.rules import BlockRule, Marks
from pruning.planning.planner import make_plan
from pruning.utils.errors import HeadroomError

BY_HAND = "by_hand"


def with_ablation(recipe: Recipe, off: Ablation) -> Recipe:
    """``recipe`` with the heads of ``off`` marked drop and, where blocks have ratios of their own,
    with its shares of FFNs. Raises UsageError."""
    marks = {block: rule.model_dump() for block, rule in recipe.marks.items()}
    for block, head in off.heads:
        now = marks.get(block, Marks().model_dump())
        marks[block] = {
            "keep": [other for other in now["keep"] if other != head],
            "drop": sorted({*now["drop"], head}),
        }
    changed = recipe.changed(marks=marks)
    if recipe.allocation == BY_HAND and off.ffn:
        common = BlockRule(heads=recipe.heads.ratio, ffn=recipe.ffn.ratio)
        ratios = {
            block: {"heads": recipe.by_hand.get(block, common).heads, "ffn": min(share, 0.95)}
            for block, share in off.ffn
        }
        changed = changed.changed(by_hand=ratios)
    return changed


def show(off: Ablation) -> None:
    """The button, what it cannot take, and what the recipe then takes."""
    draft, shape = draft_recipe(), current_measurement().shape
    takes = bool(off.heads) or (draft.allocation == BY_HAND and bool(off.ffn))
    fixed = off.heads and shape.fixed.get("attention")
    done = takes and with_ablation(draft, off) == draft
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "In the recipe" if done else "Put into the recipe",
            key="what_if.put",
            icon=":material/check:" if done else ":material/playlist_add:",
            disabled=bool(done or not takes or fixed),
            on_click=_put,
            args=(off,),
            help="Heads become marks: they go whatever the criteria say.",
        )
        pages.link("prune")
    for sentence in _left_out(off, draft, fixed):
        st.caption(sentence)
    if done:
        _taken(draft, off)


def _put(off: Ablation) -> None:
    changed = with_ablation(draft_recipe(), off)
    set_draft(
        marks={block: marks.model_dump() for block, marks in changed.marks.items()},
        by_hand={block: rule.model_dump() for block, rule in changed.by_hand.items()},
    )


def _left_out(off: Ablation, draft: Recipe, fixed: str | None) -> list[str]:
    """What of ``off`` a recipe does not take, and why."""
    said = [fixed] if fixed else []
    if off.ffn and draft.allocation != BY_HAND:
        said.append(
            "Shares of single FFNs are part of a recipe only under the sparsity allocation *By "
            "hand* (Prune page)."
        )
    if off.blocks:
        said.append("A whole block cannot go: pruning leaves one head and one channel of each.")
    return said


def _taken(draft: Recipe, off: Ablation) -> None:
    """What the plan takes of the marked blocks: grouped queries may ask for more heads."""
    measured = current_measurement()
    try:
        plan = make_plan(measured, draft)
    except HeadroomError as error:
        st.warning(str(error))
        return
    parts = []
    for block in sorted({block for block, _ in off.heads}):
        gone = plan.blocks[block].attention.removed
        parts.append(f"heads {', '.join(map(str, gone))} of block {block}")
    if parts:
        note = group_note(measured.shape, draft.heads.policy)
        st.caption(f"The recipe now takes {'; '.join(parts)}. {note}")
