"""What is switched off: clicks on the map and the lists beside it, both kept in the address."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

from app.charts.picks import picked
from app.components.block_picker import open_block
from app.session import query_params
from app.session.state import current_measurement
from pruning.artifacts.ablation import Ablation
from pruning.artifacts.shapes import ModelShape

HEADS, FFN, BLOCKS, SHARE = "off.heads", "off.ffn", "off.blocks", "off.share"
LISTS = (HEADS, FFN, BLOCKS)
FIRST_SHARE = "30"
SHARES = [str(percent) for percent in range(5, 101, 5)]
GROUPS = "off.groups"
SCATTER = "what_if.scatter"


def follow() -> None:
    """Before anything draws: take over what the address has off."""
    shape = current_measurement().shape
    names = {HEADS: _heads(shape), FFN: _numbers(shape), BLOCKS: _numbers(shape)}
    for key, known in names.items():
        # of a model that was measured before this one
        st.session_state[key] = [n for n in st.session_state.get(key, []) if n in known]
        query_params.follow(key, [], known)
    query_params.follow(SHARE, FIRST_SHARE, SHARES)


def _heads(shape: ModelShape) -> list[str]:
    return [f"{b}.{h}" for b, size in enumerate(shape.blocks) for h in range(size.attention.units)]


def _numbers(shape: ModelShape) -> list[str]:
    return [str(block) for block in range(len(shape.blocks))]


def switched_off() -> Ablation:
    """What the page has off."""
    share = int(st.session_state[SHARE]) / 100
    pairs = (name.split(".") for name in st.session_state[HEADS])
    return Ablation(
        heads=tuple(sorted((int(block), int(head)) for block, head in pairs)),
        ffn=tuple((block, share) for block in sorted(map(int, st.session_state[FFN]))),
        blocks=tuple(sorted(map(int, st.session_state[BLOCKS]))),
    )


def on_pick(chart: str) -> None:
    """Switch what was clicked off, or on again."""
    event = st.session_state.get(chart)
    if head := picked(event, "head"):
        if chart != SCATTER:  # whose block stays what it is
            open_block(head[0])
        toggle_heads(head[0], _with_group(*head))
    elif ffn := picked(event, "ffn"):
        toggle(FFN, [str(ffn[0])])
    elif block := picked(event, "block"):
        toggle(BLOCKS, [str(block[0])])


def _with_group(block: int, head: int) -> range:
    """The head, or all that share its key/value head where clicks take these."""
    size = current_measurement().shape.blocks[block].attention.units_per_group
    if not st.session_state.get(GROUPS) or size == 1:
        return range(head, head + 1)
    return range(head - head % size, head - head % size + size)


def toggle_heads(block: int, heads: Iterable[int]) -> None:
    """Switch heads of one block off; all of them on again where they are all off."""
    toggle(HEADS, [f"{block}.{head}" for head in heads])


def toggle(key: str, names: list[str]) -> None:
    """Switch ``names`` of one list off; on again where all of them are off."""
    now = st.session_state.get(key, [])
    on = [name for name in now if name not in names]
    st.session_state[key] = on if set(names) <= set(now) else [*on, *names]
    query_params.keep(key, [])


def clear() -> None:
    """Everything is on again."""
    for key in LISTS:
        st.session_state[key] = []
        query_params.keep(key, [])


def lists() -> None:
    """How much of an FFN goes off; and what a click does, by keyboard."""
    shape = current_measurement().shape
    st.select_slider(
        "Share of an FFN",
        SHARES,
        key=SHARE,
        on_change=query_params.keep,
        args=(SHARE, FIRST_SHARE),
        persist_state="session",
        format_func=lambda percent: f"{percent}%",
        help="So many of its channels go, those that the recipe's criterion ranks lowest.",
    )
    with st.expander("By name instead of a click", icon=":material/keyboard:"):
        _list("Heads off", _heads(shape), HEADS, "block.head, such as 3.1")
        left, right = st.columns(2)
        with left:
            _list("FFN off, of blocks", _numbers(shape), FFN, "block")
        with right:
            _list("Whole blocks off", _numbers(shape), BLOCKS, "block")


def _list(label: str, names: list[str], key: str, placeholder: str) -> None:
    st.multiselect(
        label,
        names,
        key=key,
        on_change=query_params.keep,
        args=(key, []),
        persist_state="session",
        placeholder=placeholder,
    )
