"""Compare: several methods at one size, as one job."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import pages
from app.charts.runs import methods_by_size
from app.components import sweep_job
from app.components.chart import show_chart
from app.components.csv_export import csv_button
from app.jobs.job import Job
from app.session import state, visitor_jobs
from app.session.live_sweep import start
from app.views.compare import questions
from pruning.sweep import Sweep, SweepPoint
from pruning.utils.errors import HeadroomError

KIND = "methods"
START = ("paper", "fast", "best")


def section() -> None:
    """Choose methods and a size, run them, see who does best."""
    st.markdown(
        "Several methods, each left to choose what goes until the same share of the block "
        "parameters is left, on the same text. Finished methods are kept on the server's disk."
    )
    wanted = _form()
    job = visitor_jobs.latest(KIND)
    busy = job is not None and job.active
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button(
            "Compare methods",
            type="primary",
            icon=":material/play_arrow:",
            key="methods.start",
            disabled=busy or wanted is None,
        ):
            start(wanted, KIND, f"Comparison of {len(wanted.presets)} methods")
        _rest(state.draft_recipe())
    if job is not None:
        sweep_job.show(job, _table_and_chart)


def _form() -> Sweep | None:
    """What to compare; says in one sentence what is wrong with it."""
    left, right = st.columns([2, 1], gap="large")
    methods = sweep_job.choose_methods("methods.presets", left, default=START)
    kept = right.slider(
        "Block parameters to keep",
        0.1,
        0.99,
        0.8,
        0.01,
        format="percent",
        key="methods.kept",
        persist_state="session",
    )
    spare = right.checkbox(
        "Only FFN channels",
        key="methods.spare",
        persist_state="session",
        help="Every head stays; all of the size is taken from the FFN.",
    )
    try:
        ratio = round(1.0 - kept, 9)
        draft = state.draft_recipe().changed(
            budget={"kept": kept, "megabytes": None, "spare_heads": spare}
        )
        return Sweep(draft, "ratio", (ratio,), tuple(methods), *questions.text_choice())
    except HeadroomError as error:
        st.error(str(error))
        return None


def _rest(draft: Any) -> None:
    """What is taken from elsewhere."""
    text = draft.calibration
    st.caption(
        f"Model {state.model_name(draft.model.source)}, calibrated on {text.samples} × "
        f"{text.seq_len} tokens of {text.source} (the recipe on Prune), seed {draft.seed}; "
        f"evaluated on {questions.text_in_words()} (as under One run)."
    )


def _table_and_chart(job: Job) -> None:
    """Table and chart of the methods that are done; a chosen row opens its recipe."""
    wanted, points = job.request.wanted, list(job.request.points)
    if not points:
        return
    titles = job.request.titles
    dense = next((p.perplexity for p in points if p.value is None), None)
    rows = [_row(point, titles, dense) for point in points]
    chart = methods_by_size(points, titles)
    table, picture = st.columns([3, 2], gap="large")
    with table:
        picked = st.dataframe(
            rows,
            hide_index=True,
            width="stretch",
            column_config=sweep_job.COLUMNS,
            key=f"methods.table.{job.id}",
            on_select="rerun",
            selection_mode="single-row",
            placeholder="–",
        )
        sweep_job.say_what_is_shown(points)
        st.caption("Choose a row to open its recipe.")
        chosen = [points[row] for row in picked.selection.rows if row < len(points)]
        with st.container(horizontal=True):
            if chosen and chosen[0].value is not None:
                _open(wanted, chosen[0], titles)
            if not job.active:
                csv_button(lambda: chart.rows, "methods", "methods.csv")
    with picture:
        show_chart(chart, "methods", f"methods.chart.{job.id}")


def _open(wanted: Sweep, point: SweepPoint, titles: dict[str, str]) -> None:
    if st.button(
        f"Open the recipe of {titles[point.preset]} on Prune",
        key="methods.open",
        icon=":material/folder_open:",
    ):
        state.replace_draft(wanted.recipe_at(point.preset, point.value))
        pages.switch("prune")


def _row(point: SweepPoint, titles: dict[str, str], dense: float | None) -> dict[str, Any]:
    known = point.perplexity is not None and dense is not None
    ratio = point.perplexity / dense if known else None
    return {**sweep_job.table_row(point, titles), "÷ dense": ratio}
