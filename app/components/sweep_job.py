"""A sweep on a page: its methods, its rows, and drawing it while it grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from app.components.job_progress import outcome, watch
from app.components.text import amount
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
        watch(job)
        _growing(job, draw)
    else:
        outcome(job)
        draw(job)


@st.fragment(run_every=1.0)
def _growing(job: Job, draw: Draw) -> None:
    """Beside the progress, not around it: a fragment in another is drawn with both."""
    draw(job)


def table_row(point: SweepPoint, titles: dict[str, str], **more: Any) -> dict[str, Any]:
    """A point in a table; ``more`` are a page's own columns, which stand first."""
    return {
        "method": titles.get(point.preset, "dense"),
        **more,
        "perplexity": point.perplexity,
        "blocks kept": point.kept,
        "parameters": point.parameters,
        "recovery": {"recovered": "better, kept", "plain": "worse, left out"}.get(point.recovery),
        "seconds": point.seconds,
    }


def say_what_is_shown(points: Sequence[SweepPoint]) -> None:
    """The protocol, and that a point may be the plain cut."""
    st.caption(f"Perplexity: {points[0].protocol}")
    plain = sum(point.recovery == "plain" for point in points)
    if plain:
        st.caption(
            f":material/info: {amount(plain, 'point')} without recovery: on held-out text the "
            "recovered model was worse than the cut alone, so the cut is kept and shown. "
            "Experiments shows methods as they are."
        )


COLUMNS = {
    "perplexity": st.column_config.NumberColumn(format="%.2f"),
    "÷ dense": st.column_config.NumberColumn(format="%.3f"),
    "blocks kept": st.column_config.NumberColumn(format="percent"),
    "parameters": st.column_config.NumberColumn(format="compact"),
    "recovery": st.column_config.TextColumn(
        help="The recovered model is compared with the plain cut on held-out text, and the better "
        "one is shown; empty where there is nothing to compare"
    ),
    "seconds": st.column_config.NumberColumn(
        format="%.0f", help="Pruning and evaluating; a measurement that methods share counts once"
    ),
}
