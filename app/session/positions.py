"""Where the heads of each block stand: laid out once per divergence, or read where they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import streamlit as st

from pruning.artifacts.measurement import Measurement
from pruning.planning.layout import Positions, content, head_layout, read_layouts

_KNOWN = "positions.known"
STORED = Path(__file__).resolve().parents[2] / "assets" / "demo-layout.json"
"""Positions for the embedded model's measurement; ``make assets`` writes both."""


@st.cache_resource(show_spinner=False)
def stored_positions() -> Positions:
    return read_layouts(STORED)


@st.cache_resource(show_spinner=False, max_entries=1024)
def node_positions(divergence: np.ndarray) -> np.ndarray:
    """Positions [heads, 2] for ``divergence`` [heads, heads] (nats); shared, read only."""
    stored = stored_positions().get(content(divergence))
    # a view: what lies below may be written to by whoever made it
    positions = (head_layout(divergence) if stored is None else stored).view()
    positions.setflags(write=False)
    return positions


def positions_of_blocks(measurement: Measurement) -> tuple[np.ndarray, ...]:
    """:func:`node_positions` of every block. A visitor's are kept beside his measurement: to look
    for each by its content takes longer than to draw it."""
    known = st.session_state.get(_KNOWN)
    if known is None or known[0] is not measurement:
        places = tuple(node_positions(block.divergence) for block in measurement.blocks)
        known = st.session_state[_KNOWN] = (measurement, places)
    return known[1]
