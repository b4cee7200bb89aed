"""Which block is open: one slider shared by pages, with the block in the address."""

from __future__ import annotations

import streamlit as st

from app.charts.picks import picked
from app.session.state import current_block, current_measurement, set_block

PARAMETER = "block"


def open_block(index: int) -> None:
    """Open ``index`` and put it into the address, so that Back and bookmarks work."""
    set_block(index)
    st.query_params[PARAMETER] = str(current_block())


def block_slider(key: str) -> int:
    """The slider; returns the open block. An address with ``?block=3`` opens block 3."""
    _follow_address()
    count = len(current_measurement().blocks)
    if count > 1:
        st.session_state[key] = current_block()
        st.slider(
            "Block",
            0,
            count - 1,
            key=key,
            on_change=lambda: open_block(st.session_state[key]),
            help="A Transformer layer: attention heads, then the feed-forward network (FFN).",
        )
    return current_block()


def _follow_address() -> None:
    wanted = st.query_params.get(PARAMETER, "")
    if wanted.isdecimal() and int(wanted) < len(current_measurement().blocks):
        set_block(int(wanted))
    if st.query_params.get(PARAMETER) != str(current_block()):
        st.query_params[PARAMETER] = str(current_block())


PICK = "heads.pick"
OPEN_WORDS = "A click on a block opens it on Heads and Activations."


def pick_head(head: int) -> None:
    """Show ``head`` in every chart."""
    st.session_state[PICK] = head


def on_open(chart: str) -> None:
    """A click outside of Heads: open the block (and pick the head) there, mark nothing."""
    block, *head = picked(st.session_state.get(chart), "block") or (None,)
    if block is not None:
        open_block(block)
        if head:
            pick_head(head[0])
