"""The run whose decisions this session shows, and where its picture stands."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import streamlit as st

from app.jobs.job import Job
from app.session import recorded, state, visitor_jobs

_OPEN = "feed.open"
_TAPE = "feed.tape"
PACE = 1.0
"""Decisions per second of a replay unless another speed is chosen."""


@dataclass
class Tape:
    """Where the picture of a run stands: it was at ``step`` at the moment ``since``, and goes on
    while ``playing``, by ``pace`` decisions per second; a ``pace`` of None is that of the work.
    Whoever follows reads the same tape."""

    step: int = 0
    pace: float | None = None
    playing: bool = True
    since: float = field(default_factory=time.monotonic)

    def at(self, length: int) -> int:
        """The present step among ``length`` decisions."""
        if not self.playing:
            return min(length, self.step)
        if self.pace is None:
            return length
        return min(length, self.step + int((time.monotonic() - self.since) * self.pace))

    def put(self, step: int, *, playing: bool = False) -> None:
        """Go to ``step``, and on from there only if ``playing``."""
        self.step, self.since, self.playing = max(0, step), time.monotonic(), playing

    def toggle(self, length: int) -> None:
        """Hold it, or let it go on; a replay at its end begins again."""
        step = self.at(length)
        ended = self.pace is not None and not self.playing and step == length
        self.put(0 if ended else step, playing=not self.playing)

    def become_replay(self, length: int) -> None:
        """The work has ended: from now on the picture goes by a clock, and begins at the end."""
        if self.pace is None:
            self.pace = PACE
            self.put(self.at(length) if not self.playing else length)


def show(job: Job, *, from_start: bool = False) -> Tape:
    """Open ``job``, unless it is open: a run at work as it decides, another one at its end, or
    with ``from_start`` playing from its first decision. Returns its tape."""
    if st.session_state.get(_OPEN) != job.id or from_start:
        tape = Tape()
        if not job.active:
            tape.become_replay(len(job.events))
        if from_start:
            tape.put(0, playing=True)
        st.session_state[_OPEN], st.session_state[_TAPE] = job.id, tape
    return st.session_state[_TAPE]


def close() -> None:
    """Nothing is open any more."""
    for key in (_OPEN, _TAPE):
        st.session_state.pop(key, None)


def is_shown(job: Job) -> bool:
    return st.session_state.get(_OPEN) == job.id


def job() -> Job | None:
    """The open run: one of this session, or the recorded one. One that was watched at work and did
    not end well is closed."""
    wanted = st.session_state.get(_OPEN)
    if wanted == recorded.ID:
        return recorded.job()
    found = visitor_jobs.manager().get(wanted)
    if found is None or found.owner != state.owner():
        return None
    tape = st.session_state[_TAPE]
    if tape.pace is None and not found.active:
        if found.status != "done":
            close()
            return None
        tape.become_replay(len(found.events))
    return found
