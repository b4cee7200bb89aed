"""The draft recipe in the page's address, so that a link or a bookmark brings it back."""

from __future__ import annotations

import base64
import binascii
import json
import zlib

import streamlit as st

from app.session import paths, state
from pruning.artifacts.recipe import Recipe
from pruning.utils.errors import HeadroomError, UsageError

PARAM = "recipe"
_SEEN = "headroom.recipe_link"
LONGEST = 4000
"""Characters of an address that is taken seriously; a recipe needs a few hundred."""

_BYTES = 1 << 16
_BROKEN = "The recipe in the address is damaged; open the page without it, or upload the file."


def encode(recipe: Recipe) -> str:
    """What ``recipe`` says beyond the defaults, compressed, in characters of addresses."""
    text = recipe.model_dump_json(exclude_defaults=True)
    return base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")


def decode(text: str) -> Recipe:
    """The recipe of :func:`encode`; raises UsageError in one sentence."""
    if len(text) > LONGEST:
        raise UsageError(_BROKEN)
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        unpacker = zlib.decompressobj()
        # a bound: a few characters could unpack to gigabytes
        data = json.loads(unpacker.decompress(raw, _BYTES))
        if not unpacker.eof:
            raise ValueError("cut off")
    except (ValueError, binascii.Error, zlib.error, RecursionError):
        raise UsageError(_BROKEN) from None
    return Recipe.parse(data, "The recipe in the address")


def follow() -> None:
    """Before a page draws: take a new address' recipe over, then keep the address up to date."""
    given = st.query_params.get(PARAM)
    if given is not None and _SEEN not in st.session_state:
        _take(given)
    draft = state.draft_recipe()
    wanted = None if draft == state.initial_recipe() else encode(draft)
    st.session_state[_SEEN] = wanted
    if wanted is None:
        st.query_params.pop(PARAM, None)
    elif wanted != given:
        st.query_params[PARAM] = wanted


def _take(text: str) -> None:
    try:
        recipe = decode(text)
        paths.check_recipe(recipe)
    except HeadroomError as error:
        state.set_problem(str(error))
    else:
        state.replace_draft(recipe)
