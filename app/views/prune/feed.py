"""The decision feed on the Prune page: live while a run works, replayed afterwards."""

from __future__ import annotations

import time

import streamlit as st

from app.components.job_progress import cancel_button, job_line, place_in_line
from app.components.scroll_top import show_top
from app.jobs.job import Job
from app.session import recorded, state, visitor_jobs
from app.views.prune import decisions, replay, stage
from app.views.prune.decisions import Frame
from app.views.prune.replay import OPEN, TAPE, Tape

HOLD = "feed.hold"


def shown(running: Job | None) -> bool:
    """Draw the running job, or the replay that is open; False when there is neither."""
    if running is not None:
        st.session_state[OPEN] = running.id
        _live(running)
        show_top(f"{running.id}.live")
        return True
    job = _opened()
    if job is None or not job.events:
        return False
    if TAPE not in st.session_state:  # it was just watched live
        if job.status != "done":
            st.session_state.pop(OPEN)
            return False
        st.session_state[TAPE] = Tape(len(job.events), time.monotonic())
    replay.show(job)
    return True


def _opened() -> Job | None:
    """The run whose replay is open: one of this session, or the recorded one."""
    wanted = st.session_state.get(OPEN)
    if wanted == recorded.ID:
        return recorded.job()
    job = visitor_jobs.manager().get(wanted)
    return job if job is not None and job.owner == state.owner() else None


@st.fragment(run_every=1.0)
def _live(job: Job) -> None:
    """A job that waits or works: how far it is, and its newest decision."""
    visitor_jobs.still_here()
    if not job.active:
        for key in (TAPE, HOLD):
            st.session_state.pop(key, None)
        st.rerun()
    name, bar, buttons = st.columns([2, 8, 4], vertical_alignment="bottom")
    name.title("Prune", anchor=False)
    bar.progress(job.fraction, text=job_line(job))
    with buttons.container(horizontal=True, horizontal_alignment="right"):
        _pause_button(job)
        cancel_button(job)
    events = list(job.events)
    hold = st.session_state.get(HOLD)
    frame = decisions.frame(events, len(events) if hold is None else hold)
    stage.draw(job, frame, _headline(job, frame))


def _pause_button(job: Job) -> None:
    held = HOLD in st.session_state or job.paused  # paused before a reload
    st.button(
        "Resume" if held else "Pause",
        key=f"pause.{job.id}",
        icon=":material/play_arrow:" if held else ":material/pause:",
        disabled=job.status != "running" or job.cancelling,
        on_click=_resume if held else _pause,
        args=(job,),
        help="Holds this picture, and the work after the present module unless others wait.",
    )


def _pause(job: Job) -> None:
    st.session_state[HOLD] = len(job.events)
    job.pause()


def _resume(job: Job) -> None:
    st.session_state.pop(HOLD, None)
    job.resume()


def _headline(job: Job, frame: Frame) -> str:
    progress, hold = job.progress, st.session_state.get(HOLD)
    if hold is None and progress is not None and progress.stage in ("tune", "evaluate", "generate"):
        return f"Every block is decided; now {job.track.line().split(', ', 1)[-1]}"
    if frame.newest is not None:
        return decisions.sentence(frame.newest)
    line = place_in_line(job) if job.status == "queued" else job.track.line()
    return f"Before the first cut: {line}"
