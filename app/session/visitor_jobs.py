"""Jobs as the pages see them: submit, find again after a reload, take over results."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import streamlit as st

from app import settings
from app.jobs import devices, tasks
from app.jobs.ablation_tasks import Bench, Question
from app.jobs.estimate import Estimator, machine_rate
from app.jobs.job import Job, Work
from app.jobs.model_store import ModelStore, default_byte_limit
from app.jobs.queue import JobManager
from app.jobs.reading_store import ReadingStore
from app.session import first_page, state
from pruning.utils.errors import HeadroomError

JOB_PARAM = "job"
_TAKEN = "headroom.taken"


@st.cache_resource(show_spinner=False)
def manager() -> JobManager:
    """The one queue of this process."""
    # dense models may take half of the memory, pruned ones half of the rest
    limits = settings.current()
    return JobManager(
        heavy_bytes=default_byte_limit() // 2,
        grace=60 * limits.grace_minutes,
        most_each=limits.jobs_per_visitor,
        most=limits.jobs,
        held_elsewhere=lambda: models().addresses(),
    )


@st.cache_resource(show_spinner=False)
def models() -> ModelStore:
    """The dense models of this process, shared by all visitors."""
    return ModelStore()


@st.cache_resource(show_spinner=False)
def readings() -> ReadingStore:
    """What dense models made of short texts, shared by all visitors."""
    return ReadingStore()


@st.cache_resource(show_spinner=False)
def estimator() -> Estimator:
    """How long work takes on this machine; learns from every run."""
    return Estimator(machine_rate())


def tells_time() -> bool:
    """Whether work of this session can be estimated: the CPU is measured without torch, once the
    server is warm, a GPU only by the first run."""
    if first_page.warming_up().is_set():
        return False
    return devices.queue_name(state.device()) == "cpu" or estimator().learned > 0


def measure_machine() -> None:
    """Find out how fast the machine is, over a second or two in which others work as well."""
    known = estimator()
    known.rate = max(known.rate, machine_rate(pause=0.2))


def learn_from(job: Job) -> None:
    """Let a finished run correct the estimates that come after it, once."""
    if job.estimate is not None and job.status == "done":
        estimator().learn(job.estimate, job.elapsed)
        job.estimate = None


def preload() -> None:
    """Load the embedded model as a visitor's first run would, time it, and let it read what *What
    if* asks first; what stands in the way of that is for the run to say."""
    choice, device = state.initial_recipe().model, state.FIRST_DEVICE
    bench = Bench(models(), readings(), choice, device)
    try:
        speeds = tasks.preload(models(), choice, device, lambda it: bench.reading(it, Question()))
    except HeadroomError:
        return
    if speeds is not None:
        estimator().measured(*speeds, state.demo_measurement().shape, tasks.SPEED_TOKENS)


def submit(kind: str, title: str, work: Work, *, device: str | None = None, **more: Any) -> Job:
    """Queue ``work`` on a device (None: the session's) and keep the job's id in the address, for
    a reload. Raises UsageError where too many wait; ``more``: see :meth:`JobManager.submit`."""
    queue_name = devices.queue_name(device or state.device())
    job = manager().submit(kind, title, work, owner=state.owner(), queue_name=queue_name, **more)
    st.query_params[JOB_PARAM] = job.id
    return job


def start(
    kind: str,
    title: str,
    make: Callable[[], Work],
    then: Callable[[], None] = st.rerun,
    **more: Any,
) -> None:
    """Queue what ``make`` gives and draw the page again, or what ``then`` does; what ``make``
    refuses is said in its sentence. ``more``: see :func:`submit`."""
    try:
        submit(kind, title, make(), **more)
    except HeadroomError as error:
        st.error(str(error))
    else:
        then()


def jobs(*kinds: str) -> list[Job]:
    """This session's jobs of these kinds, oldest first."""
    return manager().of(state.owner(), *kinds)


def latest(*kinds: str) -> Job | None:
    """The newest of :func:`jobs`."""
    return (jobs(*kinds) or [None])[-1]


def active(kinds: Iterable[str] = ()) -> Job | None:
    """The oldest job of this session that still waits or runs."""
    return next((job for job in jobs(*kinds) if job.active), None)


def runs() -> list[Job]:
    """Finished prune runs, newest first; the models of older ones are unloaded."""
    return [job for job in reversed(jobs("prune")) if job.status == "done"]


def reattach() -> None:
    """Before a page draws: find the jobs of a reloaded tab, take over what has finished.

    The job id in the address is unguessable, so holding it is the right to see its session's
    jobs.
    """
    job = manager().get(st.query_params.get(JOB_PARAM))
    if job is not None and job.owner != state.owner() and not jobs():
        state.adopt(job.owner)
        _restore_draft()
    still_here()
    newest = latest()
    if newest is not None and st.query_params.get(JOB_PARAM) != newest.id:
        st.query_params[JOB_PARAM] = newest.id
    for run in runs():
        learn_from(run)
    _take_over_measurement()


def still_here() -> None:
    """Say that this session has a page open; without it its jobs end after a while."""
    manager().seen(state.owner())


def _restore_draft() -> None:
    run = latest("prune")
    if run is not None:
        state.replace_draft(run.request)


def _take_over_measurement() -> None:
    """A finished measurement becomes the current one, once."""
    done = [job for job in jobs("measure") if job.status == "done"]
    if done and st.session_state.get(_TAKEN) != done[-1].id:
        st.session_state[_TAKEN] = done[-1].id
        state.set_measurement(done[-1].result, done[-1].request)
