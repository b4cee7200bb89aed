"""Six steps from the first graph to before and after, for someone who has never pruned a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

from app import pages
from app.session import visitor_jobs

_STEP = "headroom.tour"
AWAY = -1


@dataclass(frozen=True)
class Step:
    """``page``: the name of the page it belongs to."""

    page: str
    title: str
    words: str


STEPS = (
    Step(
        "heads",
        "Heads that do the same",
        "Each mark is one attention head of a small language model that is already measured. "
        "Heads joined by a line read the text in nearly the same way, so one of them can go.",
    ),
    Step(
        "heads",
        "How alike is alike",
        "τ is how different two heads may be and still count as alike. Move its slider: more "
        "lines, more heads marked with ✕. Nothing happens to the model yet.",
    ),
    Step(
        "activations",
        "How loud each layer is",
        "Activations are the numbers that flow through the blocks. Layers where they are small "
        "on most of the text lose little when their weakest units go.",
    ),
    Step(
        "prune",
        "Decide how much",
        "Move 'Parameters to keep': the figures on the right say at once what the model would "
        "weigh. 'Method' fills in everything else.",
    ),
    Step(
        "prune",
        "Run it",
        "Press Run. Each block is cut, and what is left is solved again so that it makes up for "
        "what went. The embedded model takes about a minute. In a hurry? Play the recording.",
    ),
    Step(
        "compare",
        "Before and after",
        "One sentence says it all. Below: how much more a text surprises the pruned model, what "
        "both write, and where it hurts. Export has the report, the recipe and the model.",
    ),
)


def panel(page: str) -> None:
    """The present step above any page; on the first page of a new visit, an offer to begin."""
    step = st.session_state.get(_STEP)
    if step == AWAY or (step is None and (page != pages.landing().name or visitor_jobs.jobs())):
        return
    offer = st.empty()  # else its buttons stay in the first step's box until the page is drawn
    if step is None:
        with offer.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown("**New to pruning?** Six short steps show how it goes.", width="content")
            _button("Take the tour", "start", 0, type="tertiary", icon=":material/explore:")
            _button("No, thanks", "no", AWAY, type="tertiary")
        return
    here = STEPS[step]
    with st.container(border=True):
        st.markdown(f"**{step + 1} of {len(STEPS)} · {here.title}** — {here.words}")
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            icon, last = ":material/arrow_back:", step == len(STEPS) - 1
            _button("Back", "back", step - 1, icon=icon, disabled=step == 0)
            following = AWAY if last else step + 1
            _button("Done" if last else "Next", "next", following, type="primary")
            if not last:
                _button("End the tour", "end", AWAY, type="tertiary")
            if page != here.page:
                pages.link(here.page, f"This step is on {pages.page(here.page).title}")


def _button(label: str, name: str, step: int, **look: Any) -> None:
    """Goes to ``step``."""
    st.button(label, key=f"tour.{name}", on_click=_go, args=(step,), **look)


def follow(page: str) -> None:
    """Open the page of a step that was just chosen."""
    step = st.session_state.get(_STEP)
    if st.session_state.pop(f"{_STEP}.moved", False) and step not in (None, AWAY):
        if STEPS[step].page != page:
            pages.switch(STEPS[step].page)


def _go(step: int) -> None:
    st.session_state[_STEP] = step
    st.session_state[f"{_STEP}.moved"] = True
