"""Which block is open: one slider shared by pages, with the block in the address."""

from __future__ import annotations

import streamlit as st

from app.state import current_block, current_measurement, set_block

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
