"""Choices that the page's address keeps by name: ``?sweep.presets=fast,flap&sweep.axis=tau``.

A select box that Streamlit itself binds to the address writes the words that it shows, so a link
would end with the next rewording.
"""

from __future__ import annotations

from collections.abc import Collection

import streamlit as st

from app.session import state

Choice = str | list[str]


def follow(key: str, default: Choice, known: Collection[str] | None = None) -> None:
    """Before the widget ``key``: let it show what the address says, and the address what it shows.

    ``default`` is what an address without ``key`` means; a list is one for several choices.
    ``known``: names that may be chosen (None: any). Others are refused in one sentence.
    """
    given = st.query_params.get(key)
    if given is not None:
        wanted = _parse(given, default)
        strange = [] if known is None else [n for n in _listed(wanted) if n not in known]
        if strange:
            state.set_problem(
                f"{key} in the address names {', '.join(strange)[:80]!r}, which does not exist; "
                f"choose from {', '.join(known)}."
            )
        else:
            st.session_state[key] = wanted
    if key not in st.session_state:
        st.session_state[key] = default
    keep(key, default)


def keep(key: str, default: Choice) -> None:
    """After a change of the widget ``key``: write it into the address."""
    chosen = st.session_state[key]
    if chosen == default:
        st.query_params.pop(key, None)
    else:
        st.query_params[key] = ",".join(_listed(chosen))


def _parse(text: str, default: Choice) -> Choice:
    if isinstance(default, str):
        return text
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _listed(choice: Choice) -> list[str]:
    return [choice] if isinstance(choice, str) else choice
