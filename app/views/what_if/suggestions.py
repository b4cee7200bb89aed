"""Before anything is off: what one could try."""

from __future__ import annotations

import streamlit as st

from app.session.state import current_block, current_measurement, draft_recipe
from app.views.what_if import selection
from pruning.criteria import CRITERIA
from pruning.planning.analysis import head_importance, most_alike
from pruning.utils.errors import NeedsMeasurement


def show() -> None:
    """An empty panel with a few first clicks."""
    block, measured = current_block(), current_measurement()
    first, second = most_alike(measured.blocks[block].divergence)
    offers = []
    if first != second:
        apart = measured.blocks[block].divergence[first, second]
        words = f"Head {first} of block {block}, most like head {second}"
        told = f"JS divergence of their attention patterns: {apart:.3f} nats"
        offers.append((words, selection.HEADS, f"{block}.{first}", told))
    try:
        score = draft_recipe().heads.score
        scores = head_importance(measured, block, score, draft_recipe().seed)
        title = CRITERIA.entry(score).title
        strongest = int(scores.argmax())
        words = f"Head {strongest} of block {block}, the most important"
        offers.append((words, selection.HEADS, f"{block}.{strongest}", f"By {title}"))
    except NeedsMeasurement:
        pass  # not measured: nothing to suggest by it
    middle = len(measured.blocks) // 2
    told = "It passes on what enters it"
    offers.append((f"Block {middle} as a whole", selection.BLOCKS, str(middle), told))
    with st.container(border=True, gap="small"):
        st.markdown("### :material/toggle_off: Nothing is off")
        st.markdown(
            "Click a head, an FFN or a block in the map: it falls silent in the loaded model, as "
            "if it had been cut and nothing repaired. Several can be off together."
        )
        for words, key, name, told in offers:
            st.button(
                words,
                key=f"what_if.offer.{key}.{name}",
                icon=":material/arrow_forward:",
                type="tertiary",
                help=told,
                on_click=selection.toggle,
                args=(key, [name]),
            )
