"""A page in two strokes: the first chart at once, the others when the browser has drawn it.

The browser draws all charts of one run before it shows any of them, so the others are asked for
by the browser; after three seconds in any case. Not while a link is being followed: Streamlit
would answer with the page that is left, and show neither.
"""

from __future__ import annotations

import streamlit as st

_STARTED = "headroom.started"
_drawn = st.components.v2.component(
    "headroom.drawn",
    js="""
export default function ({ setTriggerValue }) {
  const begun = performance.now();
  let ended = false, left = -Infinity;
  const leaves = (event) => {
    const link = event.target.closest?.("a[href]");
    if (link && link.target !== "_blank") left = performance.now();
  };
  const ask = () => { if (!ended && !waits()) { ended = true; setTriggerValue("drawn", true) } };
  const waits = () => performance.now() - left < 5000;
  const look = () => {
    if (ended) return;
    const drawn = document.querySelector(".js-plotly-plot .main-svg");
    const asks = !waits() && (drawn || performance.now() - begun > 3000);
    if (asks) requestAnimationFrame(ask);  // a frame later it is on the screen
    requestAnimationFrame(look);
  };
  document.addEventListener("click", leaves, true);
  look();
  return () => { ended = true; document.removeEventListener("click", leaves, true) };
}
""",
)


def only_first_chart() -> bool:
    """Whether this run of a visitor's first page ends with its first chart; the next one is
    asked for by the browser."""
    if st.session_state.get(_STARTED):
        return False
    st.session_state[_STARTED] = True
    st.caption("Drawing the other charts …")
    _drawn(key="headroom.drawn", on_drawn_change=lambda: None, height=1)
    return True
