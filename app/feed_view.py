"""The decision feed on the Prune page: live while a run works, replayed afterwards.

Made to be understood from the back of a room: full width, large type, one sentence per decision.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas
import streamlit as st

from app import feed, state, theme, work
from app.charts import feed as pictures
from app.charts import recovery
from app.charts.positions import node_positions
from app.feed import Frame
from app.job import Job
from app.widgets import cancel_button, duration, job_line, place_in_line
from pruning.criteria.similarity import edges
from pruning.shape import ModelShape

OPEN = "feed.open"
HOLD = "feed.hold"
TAPE = "feed.tape"
STEP = "feed.step"
PACE = "feed.pace"
PACES = {0.5: "½ per second", 1.0: "1 per second", 2.0: "2 per second", 4.0: "4 per second"}
FASTEST_TICK = 0.5
"""Seconds between redraws of a fast replay: it then shows several decisions at a time."""
EARLIER = 3


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


def shown(running: Job | None) -> bool:
    """Draw the running job, or the replay that is open; False when there is neither."""
    if running is not None:
        st.session_state[OPEN] = running.id
        st.title("Prune", anchor=False)
        _live(running)
        return True
    job = work.manager().get(st.session_state.get(OPEN))
    if job is None or job.owner != state.owner() or not job.events:
        return False
    if TAPE not in st.session_state:  # it was just watched live
        if job.status != "done":
            st.session_state.pop(OPEN)
            return False
        st.session_state[TAPE] = Tape(len(job.events), time.monotonic())
    _replay(job)
    return True


def replay_button(job: Job) -> None:
    """Opens the replay of a run that has ended, unless it is open."""
    if job.events and st.session_state.get(OPEN) != job.id:
        st.button(
            "Replay its decisions", icon=":material/replay:", on_click=_open, args=(job,),
            help="Plays the run again from what it recorded; nothing is computed.",
        )  # fmt: skip


def _open(job: Job) -> None:
    st.session_state[OPEN] = job.id
    st.session_state[TAPE] = Tape(0, time.monotonic(), playing=True)


def _close() -> None:
    for key in (OPEN, TAPE):
        st.session_state.pop(key, None)


@st.fragment(run_every=1.0)
def _live(job: Job) -> None:
    """A job that waits or works: how far it is, and its newest decision."""
    work.still_here()
    if not job.active:
        for key in (TAPE, HOLD):
            st.session_state.pop(key, None)
        st.rerun()
    bar, buttons = st.columns([5, 2], vertical_alignment="center")
    bar.progress(job.fraction, text=job_line(job))
    with buttons.container(horizontal=True, horizontal_alignment="right"):
        _pause_button(job)
        cancel_button(job)
    events = list(job.events)
    hold = st.session_state.get(HOLD)
    frame = feed.frame(events, len(events) if hold is None else hold)
    _draw(job, frame, _headline(job, frame))


def _pause_button(job: Job) -> None:
    held = HOLD in st.session_state
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
    if frame.newest is not None:
        return feed.sentence(frame.newest)
    line = place_in_line(job) if job.status == "queued" else job.track.line()
    return f"Before the first cut: {line}"


def _replay(job: Job) -> None:
    st.title("Prune", anchor=False)
    tape: Tape = st.session_state[TAPE]
    pace = st.session_state.get(PACE, 1.0)
    tick = max(FASTEST_TICK, 1.0 / pace) if tape.playing else None
    with st.container(horizontal=True, vertical_alignment="center"):
        if job.status == "done":
            took, kept = duration(job.elapsed), job.result.report.kept_block_parameters
            st.markdown(
                f"Done in {took}: **{kept:.1%} of the block parameters are kept.**",
                width="content",
            )
            st.page_link("views/compare.py", label="Open Compare", icon=":material/balance:")
        st.button(
            "Back to the recipe", icon=":material/arrow_back:", key="feed.close", on_click=_close
        )
    st.fragment(_play, run_every=tick)(job, tape)


def _play(job: Job, tape: Tape) -> None:
    """Slider, speed and the frame; redrawn by itself while it plays."""
    events, pace = job.events, st.session_state.get(PACE, 1.0)
    step = tape.at(len(events), pace)
    if tape.playing and step == len(events):
        tape.step, tape.playing = step, False
        st.rerun()  # the timer belongs to the page's run
    play, slider, speed = st.columns([2, 9, 3], vertical_alignment="bottom")
    play.button(
        "Pause" if tape.playing else "Play", key="feed.play", width="stretch",
        icon=":material/pause:" if tape.playing else ":material/play_arrow:",
        on_click=_toggle, args=(tape, len(events)),
    )  # fmt: skip
    st.session_state[STEP] = step
    slider.slider("Decision", 0, len(events), key=STEP, on_change=_scrub, args=(tape,))
    st.session_state.setdefault(PACE, 1.0)
    speed.selectbox(
        "Speed", list(PACES), format_func=PACES.get, key=PACE, on_change=_repace, args=(tape, step)
    )
    if st.session_state.pop("feed.again", False):
        st.rerun()
    frame = feed.frame(events, step)
    headline = "Before the first cut" if frame.newest is None else feed.sentence(frame.newest)
    _draw(job, frame, headline)


def _toggle(tape: Tape, length: int) -> None:
    step = tape.at(length, st.session_state.get(PACE, 1.0))
    tape.step = 0 if not tape.playing and step == length else step
    tape.since, tape.playing = time.monotonic(), not tape.playing
    st.session_state["feed.again"] = True


def _scrub(tape: Tape) -> None:
    """Moving the slider stops the replay there."""
    tape.step, tape.since = st.session_state[STEP], time.monotonic()
    if tape.playing:
        tape.playing = False
        st.session_state["feed.again"] = True


def _repace(tape: Tape, step: int) -> None:
    tape.step, tape.since = step, time.monotonic()
    st.session_state["feed.again"] = True


def _draw(job: Job, frame: Frame, headline: str) -> None:
    """Sentence, the block that is at work, totals and errors."""
    # a polite live region: screen readers speak each decision; two lines keep the rest still
    st.html(
        '<div role="status" aria-live="polite" style="font-size:clamp(1.5rem,2.2vw,2.7rem);'
        f'font-weight:600;line-height:1.2;min-height:2.4em">{escape(headline)}</div>'
    )
    shape = _shape(job)
    left, right = st.columns([5, 7], gap="medium")
    with left:
        _block(job, frame, shape)
    with right:
        _totals(frame, shape)
        _errors(job, frame, shape)
    earlier = [feed.sentence(event) for event in frame.events[-1 - EARLIER : -1][::-1]]
    st.caption("  \n".join(earlier) or "One sentence per decision will stand here.")
    if frame.events:
        with st.expander("All decisions so far"):
            st.dataframe(
                _table(frame), hide_index=True, height=300, width="stretch", column_config=COLUMNS
            )


def _shape(job: Job) -> ModelShape | None:
    """Shape of the job's model, as far as this session knows it."""
    if job.status == "done":
        return job.result.plan.shape
    measurement = state.current_measurement()
    return measurement.shape if measurement.model == job.about.model.source else None


@st.cache_data(show_spinner=False, max_entries=512)
def _positions(divergence: np.ndarray) -> np.ndarray:
    return node_positions(divergence)


def _graph(job: Job, block: int, count: int) -> tuple[np.ndarray, list]:
    """Positions and edges as on the Heads page where this model is measured; else a ring."""
    measurement = state.current_measurement()
    if measurement.model == job.about.model.source and block < len(measurement.blocks):
        divergence = measurement.blocks[block].divergence
        if len(divergence) == count:
            return _positions(divergence), edges(divergence, job.about.heads.threshold or 0.0)
    return pictures.ring_positions(count), []


def _block(job: Job, frame: Frame, shape: ModelShape | None) -> None:
    block = frame.block if job.events else job.about.blocks.start
    heads = feed.units_of(job.events, block, "attention", shape)
    channels = feed.units_of(job.events, block, "ffn", shape)
    st.markdown(
        f"##### Block {block}: heads",
        help="Lines join heads whose attention patterns are alike (JS divergence below τ). "
        "Hollow with a ✕: pruned; a thick line shows which head it is like.",
    )
    if heads:
        positions, pairs = _graph(job, block, heads)
        fresh = frame.newest is not None and frame.newest.kind == "attention"
        st.plotly_chart(
            pictures.heads(positions, pairs, frame.attention, fresh=fresh),
            config=theme.PLAIN_CONFIG, key="feed.heads",
            alt=pictures.heads_alt(block, heads, frame.attention),
        )  # fmt: skip
    st.markdown(f"##### Block {block}: FFN channels")
    if channels:
        kept = channels - (len(frame.ffn.removed) if frame.ffn else 0)
        st.plotly_chart(
            pictures.ffn_bar(channels, kept), config=theme.PLAIN_CONFIG, key="feed.ffn",
            alt=pictures.ffn_alt(block, channels, kept),
        )  # fmt: skip


def _totals(frame: Frame, shape: ModelShape | None) -> None:
    """What has gone in all, so far."""
    columns = st.columns(3)
    every = {"attention": "", "ffn": ""}
    if shape is not None:
        every = {k: f" of {sum(b.module(k).units for b in shape.blocks):,}" for k in every}
    columns[0].metric("Heads gone", f"{frame.heads_gone:,}{every['attention']}")
    columns[1].metric("Channels gone", f"{frame.channels_gone:,}{every['ffn']}")
    if shape is not None:
        left = feed.kept_so_far(frame.events, shape)
        columns[2].metric("Block parameters left", f"{left:.1%}")


def _errors(job: Job, frame: Frame, shape: ModelShape | None) -> None:
    blocks = len(shape.blocks) if shape else max((e.block for e in job.events), default=0) + 1
    start = job.about.blocks.start
    reach = range(start, max(blocks, start + 1))
    st.markdown(
        "##### Reconstruction error",
        help="Squared error of the module's output on the calibration text over the squared size "
        "of the dense output. 'Cut': with the remaining weights as they were. 'Recovered': after "
        "the solve.",
    )  # fmt: skip
    among = [] if job.active else job.events
    st.plotly_chart(
        recovery.errors(frame.events, reach, height=300, large=True, among=among),
        config=theme.PLAIN_CONFIG, key="feed.errors", alt=recovery.errors_alt(frame.events),
    )  # fmt: skip


COLUMNS: dict[str, Any] = {
    "error, cut": st.column_config.NumberColumn(format="%.4f"),
    "error, recovered": st.column_config.NumberColumn(format="%.4f"),
    "damping": st.column_config.NumberColumn(
        format="%.3g", help="How firmly the solve was held near the present weights"
    ),
    "seconds": st.column_config.NumberColumn(format="%.1f"),
}


def _table(frame: Frame) -> pandas.DataFrame:
    """One row per module, newest first."""
    return pandas.DataFrame(
        [
            {
                "block": event.block,
                "module": "FFN" if event.kind == "ffn" else "attention",
                "removed": f"{len(event.removed)} of {event.units}",
                "error, cut": event.error_before,
                "error, recovered": event.error_after,
                "damping": event.damping,
                "seconds": event.seconds,
            }
            for event in reversed(frame.events)
        ]
    )
