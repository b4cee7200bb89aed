"""The replay of a run that has ended: its decisions again, at a chosen speed or by a slider."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

import streamlit as st

from app import pages
from app.charts.recovery import error_rows
from app.components.csv_export import csv_button
from app.components.headline import sentence as answer
from app.components.scroll_top import show_top
from app.components.text import duration
from app.jobs.job import Job
from app.session import recorded
from app.views.prune import decisions, stage, starting

OPEN = "feed.open"
TAPE = "feed.tape"
STEP = "feed.step"
PACE = "feed.pace"
AGAIN = "feed.again"
PACES = {0.5: "½ per second", 1.0: "1 per second", 2.0: "2 per second", 4.0: "4 per second"}
FASTEST_TICK = 0.5
"""Seconds between redraws of a fast replay: it then shows several decisions at a time."""


@dataclass
class Tape:
    """Where a replay stands: at ``step`` at the moment ``since``, and whether it runs on."""

    step: int
    since: float
    playing: bool = False

    def at(self, length: int, pace: float) -> int:
        """The present step; ``pace`` in decisions per second."""
        ran = int((time.monotonic() - self.since) * pace) if self.playing else 0
        return min(length, self.step + ran)


def replay_button(job: Job, label: str = "Replay its decisions") -> None:
    """Opens the replay of a run that has ended, unless it is open."""
    if job.events and st.session_state.get(OPEN) != job.id:
        st.button(
            label,
            icon=":material/replay:",
            on_click=_open,
            args=(job,),
            help="Plays the run again from what it recorded; nothing is computed.",
        )


def _open(job: Job) -> None:
    st.session_state[OPEN] = job.id
    st.session_state[TAPE] = Tape(0, time.monotonic(), playing=True)


def close() -> None:
    for key in (OPEN, TAPE):
        st.session_state.pop(key, None)


def show(job: Job) -> None:
    tape: Tape = st.session_state[TAPE]
    pace = st.session_state.get(PACE, 1.0)
    tick = max(FASTEST_TICK, 1.0 / pace) if tape.playing else None
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
        csv_button(partial(error_rows, job.events), "decisions", "feed.decisions.csv")
        if recorded.is_recorded(job) and starting.run_it_here(job, "feed.here"):
            close()
            starting.start(job.request)
        st.button(
            "Back to the recipe", icon=":material/arrow_back:", key="feed.close", on_click=close
        )
    st.fragment(_play, run_every=tick)(job, tape)
    show_top(f"{job.id}.replay")


def _play(job: Job, tape: Tape) -> None:
    """Slider, speed and the frame; redrawn by itself while it plays."""
    events, pace = job.events, st.session_state.get(PACE, 1.0)
    step = tape.at(len(events), pace)
    if tape.playing and step == len(events):
        tape.step, tape.playing = step, False
        st.rerun()  # the timer belongs to the page's run
    play, slider, speed = st.columns([2, 9, 3], vertical_alignment="bottom")
    play.button(
        "Pause" if tape.playing else "Play",
        key="feed.play",
        width="stretch",
        icon=":material/pause:" if tape.playing else ":material/play_arrow:",
        on_click=_toggle,
        args=(tape, len(events)),
    )
    st.session_state[STEP] = step
    slider.slider("Decision", 0, len(events), key=STEP, on_change=_scrub, args=(tape,))
    st.session_state.setdefault(PACE, 1.0)
    speed.selectbox(
        "Speed", list(PACES), format_func=PACES.get, key=PACE, on_change=_repace, args=(tape, step)
    )
    if st.session_state.pop(AGAIN, False):
        st.rerun()
    frame = decisions.frame(events, step)
    headline = "Before the first cut" if frame.newest is None else decisions.sentence(frame.newest)
    if step == len(events) and job.status == "done" and job.result.comparison is not None:
        headline = answer(job)  # the end of the story
    stage.draw(job, frame, headline)


def _toggle(tape: Tape, length: int) -> None:
    step = tape.at(length, st.session_state.get(PACE, 1.0))
    tape.step = 0 if not tape.playing and step == length else step
    tape.since, tape.playing = time.monotonic(), not tape.playing
    st.session_state[AGAIN] = True


def _scrub(tape: Tape) -> None:
    """Moving the slider stops the replay there."""
    tape.step, tape.since = st.session_state[STEP], time.monotonic()
    if tape.playing:
        tape.playing = False
        st.session_state[AGAIN] = True


def _repace(tape: Tape, step: int) -> None:
    tape.step, tape.since = step, time.monotonic()
    st.session_state[AGAIN] = True
