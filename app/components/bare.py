"""A page alone on the screen: nothing of the app around it, nothing on its charts to press."""

from __future__ import annotations

import streamlit as st

from app.components.chart import paper

_BARE = """<style>
[data-testid=stHeader], [data-testid=stElementToolbar], [data-testid=stTooltipIcon],
[data-testid=stHeaderActionElements], .modebar-container {{ display: none }}
[data-testid=stApp] [data-testid=stMainBlockContainer] {{ padding: 1.2rem 2vw 4.5rem }}
.st-key-feed-stage [data-testid=stMetricValue] {{
  line-height: 1.2; font-size: clamp(1.5rem, 2.2vw, 3rem) }}
.st-key-feed-stage [data-testid=stMetricLabel] p {{ font-size: clamp(1rem, 1.3vw, 1.5rem) }}
.st-key-feed-stage h5 {{ font-size: clamp(1rem, 1.4vw, 1.6rem) }}
.st-key-feed-earlier p {{ font-size: clamp(1rem, 1.3vw, 1.6rem) }}
.st-key-present-keys {{ position: fixed; z-index: 10; left: 0; right: 0; bottom: 0;
  padding: .5rem 2vw; background: {paper} }}
@media (min-width: 900px) {{
  [data-testid=stApp] [data-testid=stMainBlockContainer] {{ padding-bottom: 1rem }}
  .st-key-present-line {{ position: fixed; z-index: 11; right: 2vw; bottom: .9rem;
    width: auto; max-width: 48vw }}
  .st-key-present-line p {{ text-align: right; line-height: 1.2 }}
}}
@media (max-width: 900px) {{
  [data-testid=stApp] [data-testid=stMainBlockContainer] {{ padding-bottom: 8rem }}
}}
@media (min-width: 900px) {{
  .st-key-feed-earlier p {{ max-height: 3lh; overflow: hidden }}
}}
@media (min-width: 900px) and (max-height: 780px) {{
  .st-key-feed-earlier p {{ max-height: 2lh }}
}}
@media (min-width: 900px) and (min-height: 950px) {{
  .st-key-feed-earlier p {{ max-height: 8lh }}
}}
</style>"""
"""What a presenter presses stays at the foot of the window, and as many earlier decisions are shown
as its height has room for."""


def bare_page() -> None:
    """Call it at the beginning of the page."""
    st.html(_BARE.format(paper=paper()))
