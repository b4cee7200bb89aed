"""What a page shows of a job: its line, its cancel button, its outcome."""

from __future__ import annotations

import streamlit as st

from app import pages
from app.components.text import duration, rounded
from app.jobs.job import Job
from app.session import visitor_jobs


def job_line(job: Job) -> str:
    """One line on where a job stands: its place in the queue, or its step and times."""
    if job.status == "queued":
        return f"{job.title}: {place_in_line(job)}"
    parts = [f"{job.title}: {job.track.line()}", duration(job.elapsed)]
    left = job.remaining
    if left is not None and not job.paused:
        parts.append(f"about {duration(rounded(left))} left")
    if job.cancelling:
        parts.append("stopping at the next safe point")
    elif job.paused and visitor_jobs.manager().others_wait(job):
        parts.append("others wait in the queue, so the work goes on")
    elif job.paused:
        parts.append("paused" if job.resting else "pausing after this module")
    return " · ".join(parts)


def place_in_line(job: Job) -> str:
    """How many jobs come first, and how long the one at work still needs."""
    ahead = visitor_jobs.manager().ahead(job)
    text = f"waiting, {ahead} {'job' if ahead == 1 else 'jobs'} ahead"
    seconds = visitor_jobs.manager().seconds_ahead(job)
    if seconds is not None:
        return f"{text}; its turn comes in about {duration(rounded(seconds))}"
    first = visitor_jobs.manager().running_ahead(job)
    left = None if first is None else first.remaining
    return (
        text if left is None else f"{text}; the one at work needs about {duration(rounded(left))}"
    )


def cancel_button(job: Job, place: str = "") -> None:
    """Cancel, disabled once pressed; ``place`` tells two buttons of one job apart."""
    st.button(
        "Cancel",
        key=f"cancel.{job.id}.{place}",
        icon=":material/close:",
        disabled=job.cancelling,
        on_click=visitor_jobs.manager().cancel,
        args=(job,),
    )


def watch(job: Job, place: str = "", every: float = 1.0) -> None:
    """Progress of a job with Cancel, looked at ``every`` so many seconds; redraws the page when it
    ends. ``place`` is needed where a page may show the same job twice."""
    st.fragment(_watch, run_every=every)(job, place)


def _watch(job: Job, place: str) -> None:
    visitor_jobs.still_here()
    if not job.active:
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.progress(job.fraction, text=job_line(job), width="stretch")
        cancel_button(job, place)


def outcome(job: Job | None) -> None:
    """The closing sentence of a job that did not succeed."""
    if job is None or job.status not in ("failed", "cancelled"):
        return
    if job.status == "failed":
        st.error(job.error, icon=":material/error:")
    else:
        st.info(job.error or "Cancelled.", icon=":material/cancel:")


def job_strip(page: str) -> None:
    """On pages that do not show the running job in full: one slim line about it."""
    job = visitor_jobs.active()
    if job is not None and not pages.shows(page, job.kind):
        watch(job)
