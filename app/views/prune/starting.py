"""Starting a run: how long it will take, and the job that does it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from app.components.text import duration, rounded
from app.jobs import tasks
from app.jobs.estimate import total
from app.jobs.job import Job, Work
from app.jobs.progress import Step
from app.session import paths, recorded, state, visitor_jobs
from app.views.prune import after_run
from pruning.artifacts.recipe import Recipe
from pruning.tuning import check_installed


def _timed(draft: Recipe) -> Callable[[tuple[Step, ...]], tuple[Step, ...]] | None:
    """Weighs the steps of a run by their seconds; None where there is no telling."""
    measurement = state.current_measurement()
    if draft.model.source != measurement.model or not visitor_jobs.tells_time():
        return None
    return partial(
        visitor_jobs.estimator().timed,
        recipe=draft,
        shape=measurement.shape,
        questions=after_run.questions(),
        is_loaded=visitor_jobs.models().has(draft.model, state.device()),
    )


def time_in_words(draft: Recipe) -> str | None:
    """``about 40 s``; None where there is no telling."""
    timed = _timed(draft)
    if timed is None:
        return None
    seconds = total(timed(tasks.run_steps(draft, after_run.questions())))
    return f"about {duration(rounded(seconds))}"


def start(draft: Recipe, then: Callable[[], None] = st.rerun) -> None:
    """Queue the run, and ``then`` go on; paths outside the roots are refused."""
    device, asked, timed = state.device(), after_run.questions(), _timed(draft)

    def make() -> Work:
        paths.check_recipe(draft)
        check_installed(draft)
        if asked.text is not None:
            paths.check_corpus(asked.text)
        return tasks.pruning_run(visitor_jobs.models(), draft, device, asked, timed)

    visitor_jobs.start(
        "prune",
        f"Prune {draft.model.source}",
        make,
        then=then,
        request=draft,
        storage_bytes=tasks.run_storage_bytes,
        release_models=tasks.without_models,
        estimate=None if timed is None else total(timed(tasks.run_steps(draft, asked))),
    )


def run_it_here(run: Job, key: str) -> bool:
    """The button beside a recorded run; pressed, its recipe is the draft."""
    seconds = time_in_words(run.request)
    pressed = st.button(
        f"Run it here ({seconds})" if seconds else "Run it here",
        icon=":material/play_arrow:",
        type="primary",
        key=key,
        help=f"{recorded.origin(run)}. This does the same live on this machine.",
    )
    if pressed:
        state.replace_draft(run.request)
    return pressed
