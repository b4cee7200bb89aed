"""The recorded run: what a first visitor can look at before anything was computed."""

from __future__ import annotations

from datetime import date

import streamlit as st

from app.jobs.job import Job
from pruning.artifacts.recorded import DEMO_RUN, RecordedRun
from pruning.utils.errors import SourceError

ID = "recorded"


@st.cache_resource(show_spinner=False)
def job() -> Job | None:
    """The recorded run as a job that is done, shared, read only; None where there is none."""
    try:
        run = RecordedRun.read(DEMO_RUN)
    except SourceError:
        return None
    return Job(
        ID,
        "",
        "prune",
        "Recorded run",
        "",
        None,
        request=run.recipe,
        status="done",
        events=list(run.events),
        result=run,
        started=0.0,
        finished=run.seconds,
    )


def is_recorded(run: Job) -> bool:
    """Whether ``run`` was read from a file, so that nothing of it was computed here."""
    return run.id == ID


def origin(run: Job) -> str:
    """``Recorded on 26 November 2026 on two CPU cores, in 40 s``."""
    made: RecordedRun = run.result
    day = date.fromisoformat(made.date)
    return f"Recorded on {day.day} {day:%B %Y} on {made.machine}, in {made.seconds:.0f} s"
