"""The replay of a run that has ended: its decisions again, at a chosen speed or by a slider."""

from __future__ import annotations

import sys
from functools import partial

import streamlit as st

from app import pages
from app.charts.recovery import error_rows
from app.components.audience import follow_button
from app.components.csv_export import csv_button
from app.components.scroll_top import show_top
from app.components.text import duration
from app.jobs.job import Job
from app.session import follow_links, recorded, shown, state
from app.session.shown import PACE, Tape
from app.views.prune import stage, starting

_STEP = "feed.step"
_PACE = "feed.pace"
_AGAIN = "feed.again"
PACES = {0.5: "½ per second", 1.0: "1 per second", 2.0: "2 per second", 4.0: "4 per second"}
FASTEST_TICK = 0.5
"""Seconds between redraws of a fast replay: it then shows several decisions at a time."""

_LATE = 3.0
"""Seconds by which a browser may be behind."""


def tick(tape: Tape) -> float | None:
    """Seconds between redraws of ``tape``; None: it stands still."""
    return max(FASTEST_TICK, 1.0 / (tape.pace or 1.0)) if tape.playing else None


def replay_button(job: Job, label: str = "Replay its decisions") -> None:
    """Opens the replay of a run that has ended, unless it is open."""
    if job.events and not shown.is_shown(job):
        st.button(
            label,
            icon=":material/replay:",
            on_click=shown.show,
            args=(job,),
            kwargs={"from_start": True},
            help="Plays the run again from what it recorded; nothing is computed.",
        )


def close() -> None:
    """Back to the recipe; nobody follows any more."""
    shown.close()
    follow_links.end()


def show(job: Job) -> None:
    tape = shown.show(job)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.title("Prune", anchor=False, width="content")
        if recorded.is_recorded(job):
            st.markdown(f"{recorded.origin(job)}.", width="content")
            pages.link("compare")
        elif job.status == "done":
            kept = job.result.report.kept_block_parameters
            st.markdown(
                f"Done in {duration(job.elapsed)}: {kept:.1%} of the block parameters are kept.",
                width="content",
            )
            pages.link("compare")
        present_and_follow(job, tape)
        csv_button(partial(error_rows, job.events), "decisions", "feed.decisions.csv")
        if recorded.is_recorded(job) and starting.run_it_here(job, "feed.here"):
            close()
            starting.start(job.request)
        st.button(
            "Back to the recipe", icon=":material/arrow_back:", key="feed.close", on_click=close
        )
    st.fragment(_play, run_every=tick(tape))(job, tape)
    show_top(f"{job.id}.replay")


def present_and_follow(job: Job, tape: Tape) -> None:
    """The ways out of this page: onto a large screen, and to others."""
    if st.button("Present", key="feed.present", icon=":material/slideshow:"):
        pages.switch("present")
    follow_button(job, tape)


def _play(job: Job, tape: Tape) -> None:
    """Slider, speed and the frame; redrawn by itself while it plays."""
    length = len(job.events)
    step = tape.at(length)
    if tape.playing and step == length:
        tape.put(step)
        st.rerun()  # the timer belongs to the page's run
    play, slider, speed = st.columns([2, 9, 3], vertical_alignment="bottom")
    play.button(
        "Pause" if tape.playing else "Play",
        key="feed.play",
        width="stretch",
        icon=":material/pause:" if tape.playing else ":material/play_arrow:",
        on_click=_toggle,
        args=(tape, length),
    )
    st.session_state[_STEP] = step
    slider.slider("Decision", 0, length, key=_STEP, on_change=_scrub, args=(tape,))
    st.session_state[_PACE] = tape.pace or PACE
    speed.selectbox(
        "Speed", list(PACES), format_func=PACES.get, key=_PACE, on_change=_repace, args=(tape, step)
    )
    if st.session_state.pop(_AGAIN, False):
        st.rerun()
    stage.show(job, tape, state.current_measurement())


def _toggle(tape: Tape, length: int) -> None:
    tape.toggle(length)
    st.session_state[_AGAIN] = True


def _scrub(tape: Tape) -> None:
    """Moving the slider stops the replay there. A slow browser that only tells where the replay
    itself had put it a moment ago has not moved it."""
    wanted = st.session_state[_STEP]
    ran = tape.at(sys.maxsize) - wanted
    if tape.playing and 0 <= ran <= 1 + _LATE * (tape.pace or PACE):
        return
    st.session_state[_AGAIN] = tape.playing
    tape.put(wanted)


def _repace(tape: Tape, step: int) -> None:
    tape.put(step, playing=tape.playing)
    tape.pace = st.session_state[_PACE]
    st.session_state[_AGAIN] = True
