"""Fixtures of the page tests."""

from __future__ import annotations

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.session import recipe_link, state
from pruning.artifacts.measurement import Measurement
from pruning.artifacts.recipe import Recipe
from tests.helpers import PATIENCE
from tests.helpers.recipes import plain_recipe
from tests.helpers.stand_ins import MAIN, OWNER, Engine, page_file


@pytest.fixture
def engine():
    """A fake engine and a job manager of its own."""
    st.cache_resource.clear()
    made = Engine()
    yield made
    made.gate.set()


@pytest.fixture
def visit(engine):
    """Open a page as the visitor who owns the fake jobs, or as another; with a recipe (the plain
    one unless given), or after another model has been measured."""

    def open_page(
        name: str,
        recipe: Recipe | None = None,
        owner: str = OWNER,
        measurement: Measurement | None = None,
    ) -> AppTest:
        at = AppTest.from_file(MAIN, default_timeout=PATIENCE)
        at.session_state["headroom.owner"] = owner  # the one private key that tests know
        at.query_params["recipe"] = recipe_link.encode(recipe or plain_recipe())
        if measurement is not None:
            at.session_state[state.MEASUREMENT] = measurement
        at.run()
        return at.switch_page(page_file(name)).run()

    return open_page
