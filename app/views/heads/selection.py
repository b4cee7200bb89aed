"""The picked head and the marks by hand: what a click on any chart of the Heads page does."""

from __future__ import annotations

import numpy as np
import streamlit as st

from app.charts.picks import picked
from app.components.block_picker import PICK, open_block, pick_head
from app.components.recipe_summary import marks_in_words
from app.session.state import current_block, draft_recipe, set_draft
from pruning.artifacts.rules import Marks
from pruning.planning.analysis import most_alike
from pruning.planning.graph import DROP, KEEP

MODE = "heads.mode"
MARK = "heads.mark"
LOOK = "look"
MODES = {LOOK: "Look", KEEP: "Mark keep", DROP: "Mark drop"}


def on_pick(chart: str) -> None:
    """Keep what was clicked: a chart forgets its selection when its figure changes."""
    event = st.session_state.get(chart)
    if block := picked(event, "block"):
        open_block(block[0])
    # a mark of the overview names its head after its block
    head = picked(event, "head") or (block or ())[1:]
    if head and (mode := st.session_state.get(MODE)) in (KEEP, DROP):
        now = mark_of(current_block(), head[0])
        set_mark(current_block(), head[0], None if now == mode else mode)
    if head or (head := picked(event, "pair")):
        pick_head(head[0])


def selected_head(divergence: np.ndarray) -> int:
    """The picked head; before any pick, one of the most alike pair of the block."""
    pick = st.session_state.get(PICK)
    if pick is not None and pick < len(divergence):
        return pick
    return most_alike(divergence)[0]


def mark_of(block: int, head: int) -> str | None:
    """``keep``, ``drop`` or None, as the draft has it."""
    marks = draft_recipe().marks.get(block, Marks())
    return KEEP if head in marks.keep else DROP if head in marks.drop else None


def set_mark(block: int, head: int, mark: str | None) -> None:
    """Mark ``head`` in the draft, or take its mark away."""
    marks = draft_recipe().marks.get(block, Marks())
    sides = {KEEP: set(marks.keep) - {head}, DROP: set(marks.drop) - {head}}
    if mark is not None:
        sides[mark].add(head)
    set_draft(marks={block: {side: sorted(heads) for side, heads in sides.items()}})


def clear_marks() -> None:
    """Take every mark out of the draft."""
    set_draft(marks=dict.fromkeys(draft_recipe().marks, {}))


def click_mode() -> None:
    """What a click on a head does besides picking it."""
    st.segmented_control(
        "A click on a head",
        list(MODES),
        key=MODE,
        default=LOOK,
        required=True,
        format_func=MODES.get,
        label_visibility="collapsed",
        help="Marks by hand win over τ and every score and are part of the recipe. A second click "
        "takes the mark away.",
    )


def mark_choice(block: int, head: int) -> None:
    """The mark of one head, for the keyboard."""
    st.session_state[MARK] = mark_of(block, head) or "none"
    st.selectbox(
        "Mark by hand",
        ["none", KEEP, DROP],
        key=MARK,
        format_func=str.capitalize,
        on_change=lambda: set_mark(
            block, head, None if st.session_state[MARK] == "none" else st.session_state[MARK]
        ),
        help="Keep or drop this head whatever the criteria say.",
    )


def show_marks() -> None:
    """All marks in words, and a way to be rid of them."""
    words = marks_in_words(draft_recipe())
    if words:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"Marked by hand: {words}.", width="stretch")
            st.button("Clear all marks", key="heads.clear", on_click=clear_marks)
