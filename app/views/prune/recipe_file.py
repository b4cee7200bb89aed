"""The draft as a YAML file, out and in."""

from __future__ import annotations

import streamlit as st

from app.session import paths, state
from pruning.artifacts.recipe import Recipe
from pruning.utils.errors import HeadroomError

_UPLOAD = "recipe.upload"
_OPENED = "recipe.opened"


def section() -> None:
    """Download and upload; an upload replaces the draft."""
    st.download_button(
        "Download recipe",
        state.draft_recipe().to_yaml(),
        "recipe.yaml",
        "application/yaml",
        icon=":material/download:",
        on_click="ignore",
        width="stretch",
        help="The same file runs from the command line.",
    )
    st.file_uploader(
        "Upload a recipe",
        type=["yaml", "yml", "json"],
        key=_UPLOAD,
        on_change=_uploaded,
        max_upload_size=1,
    )
    name, recipe = st.session_state.get(_OPENED, ("", None))
    if recipe == state.draft_recipe():  # a file is listed before the server has read it
        st.success(f"{name} is the recipe now.", icon=":material/check:")


def _uploaded() -> None:
    file = st.session_state[_UPLOAD]
    if file is None:
        return
    try:
        recipe = Recipe.from_yaml(file.getvalue(), f"The recipe {file.name}")
        paths.check_recipe(recipe)
    except HeadroomError as error:
        state.set_problem(str(error))
    else:
        state.replace_draft(recipe)
        st.session_state[_OPENED] = (file.name, recipe)
