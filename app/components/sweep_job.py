"""A sweep on a page: its methods, its rows, and drawing it while it grows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from app.components.job_progress import outcome, watch
from app.components.widgets import described
from app.jobs.job import Job
from pruning.presets import PRESETS
from pruning.sweep import SweepPoint

Draw = Callable[[Job], None]


def choose_methods(key: str, place: Any = st, **options: Any) -> list[str]:
    """The presets to sweep."""
    return place.multiselect(
        "Methods",
        PRESETS.names(),
        key=key,
        help=described(PRESETS),
        format_func=lambda name: PRESETS.entry(name).title,
        persist_state="session",
        **options,
    )


def show(job: Job, draw: Draw) -> None:
    """``draw(job)``, again every second until the job ends; then also how it ended."""
    if job.active:
        _growing(job, draw)
    else:
        outcome(job)
        draw(job)


@st.fragment(run_every=1.0)
def _growing(job: Job, draw: Draw) -> None:
    watch(job)
    draw(job)


def table_row(point: SweepPoint, titles: dict[str, str], **more: Any) -> dict[str, Any]:
    """A point in a table; ``more`` are a page's own columns, which stand first."""
    return {
        "method": titles.get(point.preset, "dense"),
        **more,
        "perplexity": point.perplexity,
        "blocks kept": point.kept,
        "parameters": point.parameters,
        "seconds": point.seconds,
    }


COLUMNS = {
    "perplexity": st.column_config.NumberColumn(format="%.2f"),
    "÷ dense": st.column_config.NumberColumn(format="%.3f"),
    "blocks kept": st.column_config.NumberColumn(format="percent"),
    "parameters": st.column_config.NumberColumn(format="compact"),
    "seconds": st.column_config.NumberColumn(
        format="%.0f", help="Pruning and evaluating; a measurement that methods share counts once"
    ),
}
