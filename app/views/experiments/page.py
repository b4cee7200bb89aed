"""Experiments: the paper's tables and figures for any model, cell by cell."""

from __future__ import annotations

import streamlit as st

from app.components.job_progress import outcome, watch
from app.components.text import amount, duration, rounded
from app.components.widgets import page_header, show_problem
from app.jobs.job import Job
from app.pages import Page
from app.session import live_experiment, query_params, visitor_jobs
from app.session.live_experiment import KIND, Live
from app.views.experiments import form, results
from pruning.experiments.base import EXPERIMENTS

PAGE = Page("Experiments", ":material/science:", place=65, jobs=("experiment",))


def main() -> None:
    page_header(
        "Experiments",
        "The paper's tables and figures for your model. Finished cells (a method at a size each) "
        "stay on the server's disk: what was cancelled, or cut off by a restart, goes on where it "
        "stopped.",
        measured_model=False,
    )
    query_params.follow(form.NAME, EXPERIMENTS.names()[0], EXPERIMENTS.names())
    query_params.follow(form.MODEL, "demo")
    show_problem()
    left, right = st.columns([4, 7], gap="large")
    with left:
        wanted = form.fields()
    with right:
        job = live_experiment.of(wanted.name)
        _start(wanted, job)
        busy = visitor_jobs.active((KIND,))
        if busy is not None and busy is not job:
            watch(busy, "other")
        if job is not None:
            _show(job)


def _start(wanted: Live, job: Job | None) -> None:
    """What the chosen experiment shows and costs, and the button."""
    entry = EXPERIMENTS.entry(wanted.name)
    time = live_experiment.seconds(wanted)
    cost = "The time is not known before the model was loaded or measured on the page Model."
    if time is not None:
        cost = f"**About {duration(rounded(time))}** on this machine; cells on disk take no time."
    broken_off = job is not None and job.status in ("failed", "cancelled")
    resumes = broken_off and job.request.asks_as(wanted)
    with st.container(border=True):
        st.markdown(f"**{entry.title}.** {entry.value.shows or entry.summary}")
        if job is None:  # with a table they stand below it
            st.caption("  \n".join(entry.value.notes))
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            pressed = st.button(
                "Resume" if resumes else "Start",
                type="primary",
                icon=":material/resume:" if resumes else ":material/play_arrow:",
                key="experiment.start",
                width=160,
                disabled=visitor_jobs.active((KIND,)) is not None,
            )
            st.caption(cost)
    if pressed:
        live_experiment.start(wanted)


def _show(job: Job) -> None:
    """The table as far as it is; it grows while the job works."""
    if job.active:
        watch(job)
        _growing(job)
        return
    outcome(job)
    result = job.request.result
    if job.status != "done" and result is not None:
        st.caption(f"{amount(len(result.rows), 'row')} so far; Resume goes on from there.")
    if result is not None:
        results.show(job)


@st.fragment(run_every=2.0)
def _growing(job: Job) -> None:
    """Its own fragment: charts need not be drawn as often as the progress is."""
    if job.request.result is not None:
        results.show(job)
    else:
        st.caption("The first row appears here as soon as it is finished.")


main()
