"""What a run answers at its end: the questions, and the widgets that choose them."""

from __future__ import annotations

import streamlit as st

from app.components.widgets import corpus_options
from pruning.artifacts.comparison import Questions

ASKED = {"reading": "Perplexity and tokens", "speed": "Speed", "text": "One text by both"}
_USUAL = Questions()


def section() -> None:
    """What is computed at the end of every run, on which text and from which prompt."""
    st.pills(
        "Compare both models by",
        list(ASKED),
        selection_mode="multi",
        default=list(ASKED),
        format_func=ASKED.get,
        key="after.asked",
        persist_state="session",
        help="The last steps of a run, so that Compare opens finished. Cancel during them keeps "
        "the run.",
    )
    text, windows = st.columns([2, 1], vertical_alignment="bottom")
    text.selectbox(
        "Text to evaluate on",
        key="after.text",
        index=0,
        persist_state="session",
        **corpus_options(
            texts_only=True, chosen=st.session_state.get("after.text"), first=_USUAL.text
        ),
    )
    windows.number_input(
        "Windows",
        1,
        1000,
        _USUAL.windows,
        8,
        key="after.windows",
        persist_state="session",
        help=f"Of {_USUAL.seq_len} tokens each.",
    )
    st.text_input(
        "Prompt to continue",
        _USUAL.prompt,
        key="after.prompt",
        persist_state="session",
        max_chars=4000,
    )


def questions() -> Questions:
    """What is asked by the widgets as they stand, or by default."""
    chosen = st.session_state.get
    asked = chosen("after.asked", list(ASKED))
    prompt = (chosen("after.prompt") or _USUAL.prompt).strip()
    return Questions(
        text=(chosen("after.text") or _USUAL.text) if "reading" in asked else None,
        windows=int(chosen("after.windows") or _USUAL.windows),
        speed="speed" in asked,
        prompt=prompt if "text" in asked else None,
    )
