"""An experiment at work: what the worker and the page share; what it will cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from app import settings
from app.jobs import tasks
from app.jobs.job import Job, Work
from app.session import paths, state, visitor_jobs
from pruning.artifacts.rules import ModelChoice
from pruning.artifacts.shapes import ModelShape
from pruning.artifacts.zero_shot import check_installed
from pruning.experiments.base import EXPERIMENTS
from pruning.experiments.request import Request
from pruning.experiments.result import Result

KIND = "experiment"


@dataclass(frozen=True)
class Live:
    """An experiment that was asked for, and its table as far as it is: the worker appends newer
    ones, the page reads the last."""

    name: str
    choice: ModelChoice
    request: Request
    results: list[Result] = field(default_factory=list)

    @property
    def result(self) -> Result | None:
        return self.results[-1] if self.results else None

    def take(self, result: Result) -> None:
        self.results[:] = [result]

    def asks_as(self, other: Live) -> bool:
        """Whether both were asked for the same."""
        return (self.name, self.choice, self.request) == (other.name, other.choice, other.request)


def check(wanted: Live) -> None:
    """Raise UsageError for paths outside the roots, SourceError for tasks without lm_eval."""
    paths.check_model(wanted.choice.source)
    given = (wanted.request.calibration, *(wanted.request.texts or ()))
    for text in filter(None, given):
        paths.check_corpus(text)
    if EXPERIMENTS[wanted.name].tasks and wanted.request.tasks:
        check_installed()


def start(wanted: Live) -> None:
    """Queue ``wanted``; what :func:`check` refuses is said in its sentence."""
    device, experiment = state.device(), EXPERIMENTS[wanted.name]

    def make() -> Work:
        check(wanted)
        store = visitor_jobs.models()
        return tasks.experimenting(
            store, wanted.choice, device, experiment, wanted.request, wanted.take
        )

    title = experiment.title.partition(",")[0]
    visitor_jobs.start(KIND, title, make, request=wanted, estimate=seconds(wanted))


def of(name: str) -> Job | None:
    """The visitor's newest job of the experiment ``name``."""
    jobs = [job for job in visitor_jobs.jobs(KIND) if job.request.name == name]
    return jobs[-1] if jobs else None


def task_folder() -> str | None:
    """Where the rows of the tasks are; None: on the hub."""
    folder = settings.current().task_data
    return None if folder is None else str(folder.expanduser())


def seconds(wanted: Live) -> float | None:
    """How long ``wanted`` will take with none of its cells on disk; None: there is no telling."""
    shape = _shape(wanted.choice.source)
    if shape is None or not visitor_jobs.tells_time():
        return None
    experiment = EXPERIMENTS[wanted.name]
    source = wanted.choice.source
    return visitor_jobs.estimator().of_experiment(experiment, wanted.request, source, shape)


def _shape(source: str) -> ModelShape | None:
    """The shape of a model that was measured or loaded in this visit."""
    measured = state.current_measurement()
    if measured.model == source:
        return measured.shape
    if source == "demo":
        return state.demo_measurement().shape
    loaded = [job.result for job in visitor_jobs.jobs("load") if job.status == "done"]
    return next((facts.shape for facts in reversed(loaded) if facts.source == source), None)
