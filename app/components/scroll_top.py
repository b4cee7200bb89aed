"""Bring the top of the page into view: a new stage begins there, wherever the old one was left."""

from __future__ import annotations

import streamlit as st

_scroll = st.components.v2.component(
    "headroom.page_top",
    js="""
let shown = null;
export default function ({ data }) {
  if (data.stage === shown) return;
  shown = data.stage;
  document.querySelector("[data-testid=stMain]")?.scrollTo({ top: 0 });
}
""",
)


def show_top(stage: str) -> None:
    """Scroll up once when ``stage`` begins; the same one again leaves the reader alone."""
    _scroll(key="headroom.page_top", data={"stage": stage}, height=1)
