"""What a click on a chart of the Heads page does, without a browser."""

from __future__ import annotations

import pytest
import streamlit as st

from app.components import block_picker, recipe_summary
from app.session import state
from app.views.heads import selection


@pytest.fixture
def click(monkeypatch):
    """``click(id, mode)`` as a chart reports it, in a session of its own."""
    session: dict = {}
    monkeypatch.setattr(st, "session_state", session)
    monkeypatch.setattr(selection, "open_block", state.set_block)

    def act(ident: str, mode: str = selection.LOOK) -> None:
        session[selection.MODE] = mode
        session["chart"] = {"selection": {"points": [{"customdata": ident}]}}
        selection.on_pick("chart")

    return act


def picked_head() -> int:
    """The head that every chart shows as picked."""
    block = state.current_measurement().blocks[state.current_block()]
    return selection.selected_head(block.divergence)


def marked() -> str:
    return recipe_summary.marks_in_words(state.draft_recipe())


def test_clicks_mark_and_unmark(click):
    click("head:4", selection.DROP)
    click("head:0", selection.KEEP)
    assert marked() == "block 0 keeps 0 and drops 4"
    click("head:4", selection.KEEP)  # the other mark takes its place
    click("head:0", selection.KEEP)  # a second click takes it away
    assert marked() == "block 0 keeps 4"
    click("block:7:2", selection.DROP)
    assert selection.mark_of(7, 2) == selection.DROP and state.current_block() == 7
    selection.clear_marks()
    assert not state.draft_recipe().marks


def test_looking_and_cells_mark_nothing(click):
    click("head:4")
    click("pair:3:5", selection.DROP)
    assert marked() == "" and picked_head() == 3


def test_a_click_on_another_page_opens_and_marks_nothing(click):
    st.session_state[selection.MODE] = selection.DROP
    st.session_state["chart"] = {"selection": {"points": [{"customdata": "block:7:2"}]}}
    block_picker.on_open("chart")
    assert state.current_block() == 7 and picked_head() == 2
    assert marked() == ""
    st.session_state["chart"] = {"selection": {"points": []}}
    block_picker.on_open("chart")
    assert state.current_block() == 7
