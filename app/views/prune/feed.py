"""The decision feed on the Prune page: live while a run works, replayed afterwards."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.components.job_progress import cancel_button, job_line
from app.components.scroll_top import show_top
from app.jobs.job import Job
from app.session import shown, state, visitor_jobs
from app.session.shown import Tape
from app.views.prune import replay, stage

HELD = "Holds this picture, and the work after the present module unless others wait."


def draw(running: Job | None) -> bool:
    """Draw the running job, or the replay that is open; False when there is neither."""
    if running is not None:
        tape = shown.show(running)
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            st.title("Prune", anchor=False, width="stretch")
            replay.present_and_follow(running, tape)  # not drawn again and again: it may be open
        _live(running, tape)
        show_top(f"{running.id}.live")
        return True
    job = shown.job()
    if job is None or not job.events:
        return False
    replay.show(job)
    return True


@st.fragment(run_every=1.0)
def _live(job: Job, tape: Tape) -> None:
    """A job that waits or works: how far it is, and its newest decision."""
    visitor_jobs.still_here()
    if not job.active:
        st.rerun()
    bar, buttons = st.columns([10, 4], vertical_alignment="bottom")
    bar.progress(job.fraction, text=job_line(job))
    with buttons.container(horizontal=True, horizontal_alignment="right"):
        pause_button(job, tape)
        cancel_button(job)
    stage.show(job, tape, state.current_measurement())


def pause_button(job: Job, tape: Tape, **options: Any) -> None:
    """Holds the picture, and the work behind it; ``options`` as ``st.button`` takes them."""
    held = not tape.playing or job.paused  # paused before a reload
    st.button(
        "Resume" if held else "Pause",
        key=f"pause.{job.id}",
        icon=":material/play_arrow:" if held else ":material/pause:",
        disabled=job.status != "running" or job.cancelling,
        on_click=_resume if held else _pause,
        args=(job, tape),
        **{"help": HELD, **options},
    )


def _pause(job: Job, tape: Tape) -> None:
    tape.put(len(job.events))
    job.pause()


def _resume(job: Job, tape: Tape) -> None:
    tape.put(len(job.events), playing=True)
    job.resume()
