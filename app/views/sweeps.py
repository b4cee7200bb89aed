"""Sweeps: perplexity along one setting, for several methods, drawn while it is computed."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.charts.runs import sweep_lines
from app.components import sweep_job
from app.components.chart import show_chart
from app.components.csv_export import csv_button
from app.components.text import duration, rounded
from app.components.widgets import corpus_options, page_header, show_problem
from app.jobs.job import Job
from app.pages import Page
from app.session import query_params, state, visitor_jobs
from app.session.live_sweep import seconds, start
from pruning.presets import PRESETS
from pruning.sweep import AXES, Sweep
from pruning.utils.errors import HeadroomError, UsageError

PAGE = Page("Sweeps", ":material/timeline:", place=60, jobs=("sweep",))

TITLES = {"ratio": "Ratio", "tau": "Threshold τ", "samples": "Samples"}
START = {
    "ratio": "0.1, 0.2, 0.3, 0.4",
    "tau": "0.05, 0.1, 0.15, 0.2",
    "samples": "4, 8, 16, 32, 64",
}
METHODS = ["fast", "wanda_sp"]
TEXT = "sample"
MOST_POINTS = 100


def main() -> None:
    page_header(
        "Sweeps",
        "How perplexity changes along one setting. Points appear as they finish and stay on the "
        "server's disk: the same sweep goes on where it stopped, even after a restart.",
        measured_model=False,
    )
    query_params.follow("sweep.axis", "ratio", TITLES)
    query_params.follow("sweep.presets", METHODS, PRESETS.names())
    query_params.follow("sweep.text", TEXT)
    show_problem()
    left, right = st.columns([4, 7], gap="large")
    with left:
        form()
    with right:
        job = visitor_jobs.latest("sweep")
        if job is None:
            nothing_yet()
            return
        sweep_job.show(job, drawing)


def nothing_yet() -> None:
    """The page before any sweep: what will be here."""
    with st.container(
        border=True,
        horizontal_alignment="center",
        gap="medium",
        height=420,
        vertical_alignment="center",
    ):
        st.markdown("### :material/timeline: No curve yet", width="content")
        st.markdown(
            "Choose what to vary and press Start. Each method becomes a line that grows point by "
            "point; a line that stays low loses little.",
            width="content",
            text_alignment="center",
        )


def form() -> None:
    """What to draw. All of it is kept in the page's address."""
    axis = st.segmented_control(
        "Vary",
        list(TITLES),
        format_func=TITLES.get,
        key="sweep.axis",
        required=True,
        on_change=query_params.keep,
        args=("sweep.axis", "ratio"),
        persist_state="session",
        width="stretch",
        help="Ratio: the share of the blocks' parameters that goes, as a budget, so that methods "
        "are compared at one size. τ: the similarity threshold in nats. Samples: windows of "
        "calibration text (figure 4 of the paper).",
    )
    values = st.text_input(
        "Values",
        START[axis],
        key=f"sweep.values.{axis}",
        bind="query-params",
        max_chars=500,
        help="Values with commas between them.",
    )
    presets = sweep_job.choose_methods(
        "sweep.presets", on_change=query_params.keep, args=("sweep.presets", METHODS)
    )
    text, length, windows = st.columns([2, 1, 1], vertical_alignment="bottom")
    source = text.selectbox(
        "Evaluate on",
        key="sweep.text",
        persist_state="session",
        on_change=query_params.keep,
        args=("sweep.text", TEXT),
        **corpus_options(texts_only=True, chosen=st.session_state.get("sweep.text"), first=TEXT),
    )
    seq_len = length.number_input(
        "Tokens each", 2, 131072, 128, 32, key="sweep.seq_len", bind="query-params"
    )
    limit = windows.number_input(
        "Windows", 1, 100_000, 16, 8, key="sweep.windows", bind="query-params"
    )
    wanted = _wanted(axis, values, presets, source, int(seq_len), int(limit))
    _rest(axis)
    busy = visitor_jobs.active(("sweep",)) is not None
    time = None if wanted is None else seconds(wanted)
    if time is not None:
        st.caption(
            f"**About {duration(rounded(time))}** on this machine; points that are on disk take no "
            "time."
        )
    if st.button(
        "Start",
        type="primary",
        icon=":material/play_arrow:",
        key="sweep.start",
        width=160,
        disabled=busy or wanted is None,
    ):
        start(wanted, "sweep", f"Sweep of {len(wanted.points())} points")


def _wanted(axis: Any, values: str, presets: list[str], *text: Any) -> Sweep | None:
    """The sweep that the form describes; says in one sentence what is wrong with it."""
    try:
        wanted = Sweep(state.draft_recipe(), axis, numbers(values), tuple(presets), *text)
        if len(wanted.points()) > MOST_POINTS:
            raise UsageError(f"These are more than {MOST_POINTS} points; choose fewer values.")
    except HeadroomError as error:
        st.error(str(error))
        return None
    return wanted


def numbers(text: str) -> tuple[float, ...]:
    """Numbers of a list with commas, rising, each once; raises UsageError."""
    try:
        return tuple(sorted({float(part) for part in text.split(",") if part.strip()}))
    except ValueError:
        raise UsageError(f"{text!r} is not a list of numbers such as 0.1, 0.2, 0.3.") from None


def _rest(axis: str) -> None:
    """What the sweep takes from the draft recipe."""
    draft = state.draft_recipe()
    calibration = draft.calibration
    parts = [f"model {state.model_name(draft.model.source)}"]
    windows = "" if axis == "samples" else f"{calibration.samples} × "
    parts.append(f"calibration {calibration.source}, {windows}{calibration.seq_len} tokens")
    if axis != "ratio":
        budget = draft.budget
        kept = f"keep {budget.kept:.0%} of {budget.of}" if budget.kept is not None else None
        ratios = f"heads {draft.heads.ratio:.0%}, FFN {draft.ffn.ratio:.0%}"
        parts.append(kept or (f"{budget.megabytes:g} MB" if budget.megabytes else ratios))
    st.caption(f"From the recipe on Prune: {'; '.join(parts)}; seed {draft.seed}.")


def drawing(job: Job) -> None:
    """Chart, table and CSV of a sweep, finished or not."""
    wanted, points = job.request.wanted, list(job.request.points)
    titles = job.request.titles
    reach = (min(wanted.values), max(wanted.values))
    chart = sweep_lines(points, titles, AXES[wanted.axis], reach)
    show_chart(chart, "sweep", f"sweep.chart.{job.id}")
    if not points:
        return
    sweep_job.say_what_is_shown(points)
    rows = [
        sweep_job.table_row(point, titles, **{TITLES[wanted.axis].lower(): point.value})
        for point in points
    ]
    st.dataframe(
        rows, hide_index=True, width="stretch", column_config=sweep_job.COLUMNS, placeholder="–"
    )
    if not job.active:
        csv_button(lambda: chart.rows, "sweep", f"sweep.csv.{job.id}")


main()
