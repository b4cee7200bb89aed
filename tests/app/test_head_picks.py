"""What a click on a chart of the Heads page does, without a browser."""

from __future__ import annotations

import pytest
import streamlit as st

from app import head_picks, recipe_words, state


@pytest.fixture
def click(monkeypatch):
    """``click(id, mode)`` as a chart reports it, in a session of its own."""
    session: dict = {}
    monkeypatch.setattr(st, "session_state", session)
    monkeypatch.setattr(head_picks, "open_block", state.set_block)

    def act(ident: str, mode: str = head_picks.LOOK) -> None:
        session[head_picks.MODE] = mode
        session["chart"] = {"selection": {"points": [{"customdata": ident}]}}
        head_picks.on_pick("chart")

    return act


def marked() -> str:
    return recipe_words.marks_in_words(state.draft_recipe())


def test_clicks_mark_and_unmark(click):
    click("head:4", head_picks.DROP)
    click("head:0", head_picks.KEEP)
    assert marked() == "block 0 keeps 0 and drops 4"
    click("head:4", head_picks.KEEP)  # the other mark takes its place
    click("head:0", head_picks.KEEP)  # a second click takes it away
    assert marked() == "block 0 keeps 4"
    click("block:7:2", head_picks.DROP)
    assert head_picks.mark_of(7, 2) == head_picks.DROP and state.current_block() == 7
    head_picks.clear_marks()
    assert not state.draft_recipe().marks


def test_looking_and_cells_mark_nothing(click):
    click("head:4")
    click("pair:3:5", head_picks.DROP)
    assert marked() == "" and st.session_state[head_picks.PICK] == 3


def test_a_click_on_another_page_opens_and_marks_nothing(click):
    st.session_state[head_picks.MODE] = head_picks.DROP
    st.session_state["chart"] = {"selection": {"points": [{"customdata": "block:7:2"}]}}
    head_picks.on_open("chart")
    assert state.current_block() == 7 and st.session_state[head_picks.PICK] == 2
    assert marked() == ""
    st.session_state["chart"] = {"selection": {"points": []}}
    head_picks.on_open("chart")
    assert state.current_block() == 7
