"""Fixtures of the page tests."""

from __future__ import annotations

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from tests.helpers.stand_ins import MAIN, OWNER, PATIENCE, Engine, page_file


@pytest.fixture
def engine():
    """A fake engine and a job manager of its own."""
    st.cache_resource.clear()
    made = Engine()
    yield made
    made.gate.set()


@pytest.fixture
def visit(engine):
    """Open a page as the visitor who owns the fake jobs."""

    def open_page(name: str, **session) -> AppTest:
        at = AppTest.from_file(MAIN, default_timeout=PATIENCE)
        at.session_state["headroom.owner"] = OWNER
        for key, value in session.items():
            at.session_state[key] = value
        at.run()
        return at.switch_page(page_file(name)).run()

    return open_page
