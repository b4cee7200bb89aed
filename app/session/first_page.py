"""Whether a page of this server has been drawn: what waits for that begins then."""

from __future__ import annotations

import threading

import streamlit as st


@st.cache_resource(show_spinner=False)
def drawn() -> threading.Event:
    """Set once any visitor's page has been drawn."""
    return threading.Event()
