"""Whether a page of this server has been drawn: what waits for that begins then."""

from __future__ import annotations

import threading

import streamlit as st


@st.cache_resource(show_spinner=False)
def drawn() -> threading.Event:
    """Set once any visitor's page has been drawn."""
    return threading.Event()


@st.cache_resource(show_spinner=False)
def warming_up() -> threading.Event:
    """Set while the server prepares for visitors: how fast the machine is cannot be told then."""
    return threading.Event()
