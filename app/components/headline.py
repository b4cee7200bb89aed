"""A run in one sentence, large enough for the back of the room."""

from __future__ import annotations

from html import escape

import streamlit as st

from app.jobs.job import Job
from pruning.artifacts.comparison import headline


def sentence(run: Job) -> str:
    """``15% of the block parameters gone, perplexity 58 → 68, 1.2 × as fast``."""
    return headline(run.result.report.kept_block_parameters, run.result.comparison)


def show_headline(run: Job) -> None:
    """:func:`sentence` across the page, and what could not be answered."""
    with st.container(key="headline"):
        st.html(
            '<div role="status" style="font-size:clamp(1.6rem,2.9vw,3.2rem);font-weight:700;'
            f'line-height:1.15;padding:.2em 0 .3em">{escape(sentence(run))}</div>'
        )
    for problem in run.result.comparison.problems if run.result.comparison else ():
        st.warning(problem)
