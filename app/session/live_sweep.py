"""A sweep at work: what the worker and the page share."""

from __future__ import annotations

from dataclasses import dataclass, field

import streamlit as st

from app.jobs import tasks
from app.session import paths, state, visitor_jobs
from pruning.presets import PRESETS
from pruning.sweep import Sweep, SweepPoint
from pruning.utils.errors import HeadroomError


@dataclass(frozen=True)
class Live:
    """A sweep and its points so far: the worker appends, the page reads."""

    wanted: Sweep
    points: list[SweepPoint] = field(default_factory=list)

    @property
    def titles(self) -> dict[str, str]:
        """What the swept presets are called."""
        return {name: PRESETS.entry(name).title for name in self.wanted.presets}


def start(wanted: Sweep, kind: str, title: str) -> None:
    """Queue ``wanted`` as a job of ``kind``; refuse paths outside the roots."""
    try:
        paths.check_recipe(wanted.recipe)
        paths.check_corpus(wanted.text)
    except HeadroomError as error:
        st.error(str(error))
        return
    live, device = Live(wanted), state.device()
    task = tasks.sweeping(visitor_jobs.models(), wanted, device, live.points.append)
    visitor_jobs.submit(kind, title, task, device=device, request=live)
    st.rerun()
