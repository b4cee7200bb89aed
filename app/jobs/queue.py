"""Long work outside the page script: one queue and one worker thread per device.

Nothing here knows Streamlit, and workers never call it: pages read a job's fields instead, and
say by :meth:`JobManager.seen` that somebody is still there to read them.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

from app.jobs import memory
from app.jobs.job import Job, Status, StorageBytes, Task, Work
from app.jobs.progress import Track
from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback
from pruning.utils.errors import Cancelled, HeadroomError, UsageError, described

GRACE = 30 * 60.0
"""Seconds that a job goes on with nobody looking."""
KEEP = 200
"""Finished jobs that are remembered."""

log = logging.getLogger("headroom.jobs")


class JobManager:
    """Queues jobs by device and remembers finished ones within bounds."""

    def __init__(
        self,
        *,
        keep_heavy_each: int = 3,
        heavy_bytes: int = 8 << 30,
        grace: float = GRACE,
        most_each: int = 1000,
        most: int = 1000,
        held_elsewhere: Callable[[], Collection[int]] = frozenset,
    ) -> None:
        """``most_each``: jobs of one owner that may wait or be at work, ``most`` of all;
        ``held_elsewhere``: storages that would stay in memory if a result were dropped."""
        self._jobs: dict[str, Job] = {}
        self._queues: dict[str, deque[Job]] = {}
        self._wake = threading.Condition()
        self._keep_heavy_each, self._heavy_bytes = keep_heavy_each, heavy_bytes
        self._grace, self._held_elsewhere = grace, held_elsewhere
        self._most_each, self._most = most_each, most
        self._seen: dict[str, float] = {}

    def submit(
        self,
        kind: str,
        title: str,
        work: Work,
        *,
        owner: str,
        queue_name: str,
        storage_bytes: StorageBytes | None = None,
        release_models: Callable[[Any], Any] | None = None,
        request: Any = None,
        estimate: float | None = None,
    ) -> Job:
        """Queue ``work`` behind the device's other jobs and return at once. Raises UsageError
        where too many wait."""
        job = Job(
            secrets.token_urlsafe(16),
            owner,
            kind,
            title,
            queue_name,
            work,
            storage_bytes,
            request,
            Track(work.steps if isinstance(work, Task) else ()),
            release_models=release_models,
            estimate=estimate,
        )
        with self._wake:
            self._check_room(owner)
            self._seen[owner] = time.monotonic()
            self._jobs[job.id] = job
            if queue_name not in self._queues:
                self._queues[queue_name] = deque()
                # a daemon: closing the server must not wait for an hour of pruning
                threading.Thread(
                    target=self._serve,
                    args=(queue_name,),
                    name=f"headroom-{queue_name}",
                    daemon=True,
                ).start()
            self._queues[queue_name].append(job)
            self._forget_old()
            self._wake.notify_all()
        return job

    def _check_room(self, owner: str) -> None:
        active = [job.owner for job in self._jobs.values() if job.active]
        if active.count(owner) >= self._most_each:
            raise UsageError(
                f"You have {active.count(owner)} jobs waiting or at work, as many as this server "
                "takes from one visitor; wait for one, or cancel one."
            )
        if len(active) >= self._most:
            raise UsageError(f"{len(active)} jobs wait on this server; try again later.")

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

    def seen(self, owner: str) -> None:
        """The owner has a page open: its jobs are wanted. Pages say so at every redraw."""
        with self._wake:
            if owner in self._seen:  # those without a job need no memory
                self._seen[owner] = time.monotonic()
            for waiting in self._queues.values():
                for job in [job for job in waiting if self._is_abandoned(job)]:
                    waiting.remove(job)
                    _finish(job, "cancelled", error=self.expired_message())

    def ahead(self, job: Job) -> int:
        """How many jobs run before this one starts; 0 once it runs."""
        with self._wake:
            if job.status != "queued":
                return 0
            waiting = list(self._queues[job.queue_name])
            return waiting.index(job) + (self._at_work(job.queue_name) is not None)

    def running_ahead(self, job: Job) -> Job | None:
        """The job that a waiting one waits for at this moment."""
        with self._wake:
            return self._at_work(job.queue_name) if job.status == "queued" else None

    def seconds_ahead(self, job: Job) -> float | None:
        """How long the jobs before a waiting one will take; None where one of them cannot tell."""
        with self._wake:
            waiting = list(self._queues[job.queue_name])
            first = self._at_work(job.queue_name)
        if job not in waiting:
            return 0.0
        before = [*([first] if first is not None else []), *waiting[: waiting.index(job)]]
        seconds = [each.remaining for each in before]
        return None if None in seconds else sum(seconds)

    def others_wait(self, job: Job) -> bool:
        """Whether jobs wait for this running one."""
        with self._wake:
            return bool(self._queues[job.queue_name])

    def _at_work(self, queue_name: str) -> Job | None:
        running = (
            j for j in self._jobs.values() if j.queue_name == queue_name and j.status == "running"
        )
        return next(running, None)

    def cancel(self, job: Job) -> None:
        """Stop a job; one that still waits is taken out of the queue at once."""
        job.cancel()
        with self._wake:
            if job.status == "queued" and job in self._queues[job.queue_name]:
                self._queues[job.queue_name].remove(job)
                _finish(job, "cancelled", error="Cancelled before it started.")

    def forget(self, job: Job) -> None:
        """Drop a job that nobody will ask about again; one at work is only stopped."""
        self.cancel(job)
        with self._wake:
            if not job.active:
                self._jobs.pop(job.id, None)

    def _serve(self, queue_name: str) -> None:
        queue = self._queues[queue_name]
        while True:
            with self._wake:
                self._wake.wait_for(lambda: queue)
                job = queue.popleft()
                job.status, job.started = "running", time.monotonic()
            self._run(job)
            with self._wake:
                dropped = self._forget_old()
            held = job.status != "done"  # a run that stopped half way leaves a model behind
            del job  # a waiting worker must not keep the last result in memory
            if dropped or held:
                del dropped
                memory.free_memory()

    def _run(self, job: Job) -> None:
        def should_cancel() -> bool:
            if self._is_abandoned(job):
                job.abandoned = True
                job.cancel()
            return job.should_cancel()

        def report(progress: Progress) -> None:
            job.report(progress)
            if job.paused:  # never while others wait, and not for a closed page
                job.rest(lambda: not should_cancel() and not self.others_wait(job))

        if should_cancel():
            _finish(job, "cancelled")
        else:
            _run(job, report, should_cancel)
        if job.abandoned and job.status == "cancelled":
            job.error = self.expired_message()

    def _is_abandoned(self, job: Job) -> bool:
        return time.monotonic() - self._seen.get(job.owner, job.created) > self._grace

    def expired_message(self) -> str:
        minutes = max(1, round(self._grace / 60))
        return f"Ended: nobody had it open for {minutes} min; the model is as it was."

    def _forget_old(self) -> list[Job]:
        """Drop the oldest finished jobs beyond the bounds; pruned models are few and large."""
        finished = [job for job in self._jobs.values() if not job.active]
        beyond = set(finished[:-KEEP])
        dropped = finished[:-KEEP]
        heavy = [job for job in finished if job.storages]
        for name in {job.owner for job in heavy}:
            dropped += [job for job in heavy if job.owner == name][: -self._keep_heavy_each]
        left = [job for job in heavy if job not in dropped]
        apart = self._held_elsewhere()
        # the newest stays whatever it weighs
        while len(left) > 1 and _bytes_of(left, apart) > self._heavy_bytes:
            dropped.append(left.pop(0))
        for job in dropped:
            if job.release_models is None or job in beyond:
                self._jobs.pop(job.id, None)
            else:
                job.result, job.storages = job.release_models(job.result), {}
        owners = {job.owner for job in self._jobs.values()}
        self._seen = {name: when for name, when in self._seen.items() if name in owners}
        return dropped


def _bytes_of(jobs: Sequence[Job], apart: Collection[int]) -> int:
    """Bytes that only these results hold; what they share counts once."""
    held: dict[int, int] = {}
    for job in jobs:
        held.update(job.storages)
    return sum(size for storage, size in held.items() if storage not in apart)


def _run(job: Job, report: ProgressCallback, should_cancel: CancelCheck) -> None:
    try:
        result = job.work(report, should_cancel)
    except Cancelled as error:
        _finish(job, "cancelled", error=str(error))
    except HeadroomError as error:
        _finish(job, "failed", error=str(error))
    except MemoryError:
        _finish(
            job,
            "failed",
            error="There is not enough memory for this; choose a smaller "
            "model, fewer samples or a shorter length.",
        )
    except Exception as error:
        log.exception("job %r failed", job.title)
        _finish(
            job,
            "failed",
            error=f"{job.title} failed unexpectedly ({described(error)}); "
            "the server's log has the details.",
        )
    else:
        _finish(job, "done", result=result)


def _finish(job: Job, status: Status, result: Any = None, error: str | None = None) -> None:
    job.work = None  # it may close over a model
    job.result, job.error = result, error
    job.storages = (
        job.storage_bytes(result) if job.storage_bytes is not None and status == "done" else {}
    )
    job.finished = time.monotonic()
    job.status = status  # last: readers look at the rest only once this says so
