"""Long work outside the page script: one queue and one worker thread per device.

Nothing here knows Streamlit, and workers never call it: pages read a job's fields instead.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pruning.errors import Cancelled, HeadroomError
from pruning.events import CancelCheck, ModuleEvent, Progress, ProgressCallback

Status = Literal["queued", "running", "done", "failed", "cancelled"]
Work = Callable[[ProgressCallback, CancelCheck], Any]
"""``work(progress, should_cancel) -> result``; runs in a worker thread."""

log = logging.getLogger("headroom.jobs")


@dataclass(eq=False)
class Job:
    """One piece of work. ``owner`` is the session that asked; ``about`` says what it is about.

    ``weigh`` gives the bytes that a result holds in memory, for results that hold a model;
    ``lighten`` gives what is kept of such a result when its memory is needed (None: the whole job
    is forgotten).
    """

    id: str
    owner: str
    kind: str
    title: str
    lane: str
    work: Work | None
    weigh: Callable[[Any], int] | None = None
    lighten: Callable[[Any], Any] | None = None
    about: Any = None
    status: Status = "queued"
    progress: Progress | None = None
    events: list[ModuleEvent] = field(default_factory=list)
    result: Any = None
    error: str | None = None
    created: float = field(default_factory=time.monotonic)
    started: float | None = None
    finished: float | None = None
    _cancel: threading.Event = field(default_factory=threading.Event)

    @property
    def active(self) -> bool:
        return self.status in ("queued", "running")

    @property
    def cancelling(self) -> bool:
        """Asked to stop, but still at work until its next safe point."""
        return self.active and self._cancel.is_set()

    @property
    def elapsed(self) -> float:
        """Seconds at work so far (waiting does not count)."""
        if self.started is None:
            return 0.0
        return (self.finished or time.monotonic()) - self.started

    @property
    def fraction(self) -> float:
        """Share of the present stage that is done, in [0, 1]."""
        if self.status == "done":
            return 1.0
        if self.progress is None or not self.progress.total:
            return 0.0
        return min(1.0, max(0.0, self.progress.done / self.progress.total))

    def cancel(self) -> None:
        """Ask the work to stop at its next safe point; a waiting job never starts."""
        self._cancel.set()

    def should_cancel(self) -> bool:
        return self._cancel.is_set()

    def report(self, progress: Progress) -> None:
        """The ``progress=`` callback of the engine."""
        self.progress = progress
        if progress.event is not None:
            self.events.append(progress.event)


class JobManager:
    """Queues jobs by lane (device) and remembers finished ones within bounds."""

    def __init__(
        self, *, keep: int = 200, keep_heavy_each: int = 3, heavy_bytes: int = 8 << 30
    ) -> None:
        self._jobs: dict[str, Job] = {}
        self._lanes: dict[str, deque[Job]] = {}
        self._wake = threading.Condition()
        self._keep, self._keep_heavy_each = keep, keep_heavy_each
        self._heavy_bytes = heavy_bytes

    def submit(
        self,
        kind: str,
        title: str,
        work: Work,
        *,
        owner: str,
        lane: str,
        weigh: Callable[[Any], int] | None = None,
        lighten: Callable[[Any], Any] | None = None,
        about: Any = None,
    ) -> Job:
        """Queue ``work`` behind the lane's other jobs and return at once."""
        name = secrets.token_urlsafe(16)
        job = Job(name, owner, kind, title, lane, work, weigh, lighten, about)
        with self._wake:
            self._jobs[job.id] = job
            if lane not in self._lanes:
                self._lanes[lane] = deque()
                # a daemon: closing the server must not wait for an hour of pruning
                threading.Thread(
                    target=self._serve, args=(lane,), name=f"headroom-{lane}", daemon=True
                ).start()
            self._lanes[lane].append(job)
            self._forget_old()
            self._wake.notify_all()
        return job

    def get(self, job_id: str | None) -> Job | None:
        """The job with this id, or None when it never was or was forgotten."""
        return self._jobs.get(job_id) if job_id else None

    def of(self, owner: str, *kinds: str) -> list[Job]:
        """The owner's jobs (of these kinds), oldest first."""
        with self._wake:
            return [
                job
                for job in self._jobs.values()
                if job.owner == owner and (not kinds or job.kind in kinds)
            ]

    def ahead(self, job: Job) -> int:
        """How many jobs run before this one starts; 0 once it runs."""
        with self._wake:
            if job.status != "queued":
                return 0
            waiting = list(self._lanes[job.lane])
            place = waiting.index(job) if job in waiting else 0
            busy = any(j.lane == job.lane and j.status == "running" for j in self._jobs.values())
            return place + busy

    def cancel(self, job: Job) -> None:
        """Stop a job; one that still waits is taken out of the queue at once."""
        job.cancel()
        with self._wake:
            if job.status == "queued" and job in self._lanes[job.lane]:
                self._lanes[job.lane].remove(job)
                _finish(job, "cancelled", error="Cancelled before it started.")

    def _serve(self, lane: str) -> None:
        queue = self._lanes[lane]
        while True:
            with self._wake:
                self._wake.wait_for(lambda: queue)
                job = queue.popleft()
                job.status, job.started = "running", time.monotonic()
            _run(job)
            with self._wake:
                self._forget_old()
            del job  # a waiting worker must not keep the last result in memory

    def _forget_old(self) -> None:
        """Drop the oldest finished jobs beyond the bounds; pruned models are few and large."""
        finished = [job for job in self._jobs.values() if not job.active]
        dropped = finished[: -self._keep] if len(finished) > self._keep else []
        heavy = [job for job in finished if job.weigh is not None and job.status == "done"]
        for name in {job.owner for job in heavy}:
            dropped += [job for job in heavy if job.owner == name][: -self._keep_heavy_each]
        left = [job for job in heavy if job not in dropped]
        held = sum(job.weigh(job.result) for job in left)
        for job in left[:-1]:  # the newest stays whatever it weighs
            if held <= self._heavy_bytes:
                break
            held -= job.weigh(job.result)
            dropped.append(job)
        beyond = set(finished[: -self._keep])
        for job in dropped:
            if job.lighten is None or job in beyond:
                self._jobs.pop(job.id, None)
            else:
                job.result, job.weigh = job.lighten(job.result), None


def _run(job: Job) -> None:
    try:
        result = job.work(job.report, job.should_cancel)
    except Cancelled as error:
        _finish(job, "cancelled", error=str(error))
    except HeadroomError as error:
        _finish(job, "failed", error=str(error))
    except MemoryError:
        _finish(job, "failed", error="There is not enough memory for this; choose a smaller "
                "model, fewer samples or a shorter length.")  # fmt: skip
    except Exception as error:
        log.exception("job %r failed", job.title)
        line = (str(error).strip().splitlines() or [""])[0][:160]
        reason = f"{type(error).__name__}: {line}" if line else type(error).__name__
        _finish(job, "failed", error=f"{job.title} failed unexpectedly ({reason.rstrip('.')}); "
                "the server's log has the details.")  # fmt: skip
    else:
        _finish(job, "done", result=result)


def _finish(job: Job, status: Status, result: Any = None, error: str | None = None) -> None:
    job.work = None  # it may close over a model
    job.result, job.error = result, error
    job.finished = time.monotonic()
    job.status = status  # last: readers look at the rest only once this says so
