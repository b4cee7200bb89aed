"""Draws the page again when the system's theme changes: charts carry colours of the page."""

from __future__ import annotations

import streamlit as st

_watch = st.components.v2.component(
    "headroom.theme",
    js="""
export default function ({ setTriggerValue }) {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  // later: Streamlit hears of it too, and tells the server its theme with the next run
  const changed = () => setTimeout(() => setTriggerValue("changed", dark.matches), 300);
  dark.addEventListener("change", changed);
  return () => dark.removeEventListener("change", changed);
}
""",
)


def watch_theme() -> None:
    """At the end of a page, where it moves nothing."""
    _watch(key="headroom.theme", on_changed_change=lambda: None, height=1)
