"""A page alone on the screen: nothing of the app around it, nothing on its charts to press."""

from __future__ import annotations

import streamlit as st

_BARE = """<style>
[data-testid=stHeader], [data-testid=stElementToolbar], [data-testid=stTooltipIcon],
[data-testid=stHeaderActionElements], .modebar-container { display: none }
[data-testid=stApp] [data-testid=stMainBlockContainer] { padding: 1.2rem 2vw }
.st-key-feed-stage [data-testid=stMetricValue] {
  line-height: 1.2; font-size: clamp(1.5rem, 2.2vw, 3rem) }
.st-key-feed-stage [data-testid=stMetricLabel] p { font-size: clamp(1rem, 1.3vw, 1.5rem) }
.st-key-feed-stage h5 { font-size: clamp(1rem, 1.4vw, 1.6rem) }
.st-key-feed-earlier p { font-size: clamp(1rem, 1.3vw, 1.6rem) }
</style>"""


def bare_page() -> None:
    """Call it at the beginning of the page."""
    st.html(_BARE)
