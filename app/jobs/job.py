"""One piece of long work, as a page reads it while a worker does it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from app.jobs.progress import Step, Track
from pruning.artifacts.events import (
    CancelCheck,
    ModuleEvent,
    Progress,
    ProgressCallback,
    RecoveryCheck,
)
from pruning.artifacts.tuning import TuningStep

PAUSE_STEP = 0.1
"""Seconds between looks at whether a paused job goes on."""

Status = Literal["queued", "running", "done", "failed", "cancelled"]
Work = Callable[[ProgressCallback, CancelCheck], Any]
"""``work(progress, should_cancel) -> result``; runs in a worker thread."""
StorageBytes = Callable[[Any], Mapping[int, int]]
"""``result -> {storage: bytes}``: what a result holds in memory; results may share storages."""


@dataclass(frozen=True)
class Task:
    """Work that announces its steps."""

    run: Work
    steps: tuple[Step, ...] = ()

    def __call__(self, progress: ProgressCallback, should_cancel: CancelCheck) -> Any:
        return self.run(progress, should_cancel)


@dataclass(eq=False)
class Job:
    """One piece of work. ``owner`` is the session that asked; ``request``: what it asked for.

    ``estimate``: seconds of work that it was thought to take (None: no telling).
    ``storage_bytes`` is given for results that hold a model; ``release_models`` gives what is
    kept of such a result when its memory is needed (None: the whole job is forgotten). ``track``
    knows how far the work is.
    """

    id: str
    owner: str
    kind: str
    title: str
    queue_name: str
    work: Work | None
    storage_bytes: StorageBytes | None = None
    request: Any = None
    track: Track = field(default_factory=Track)
    status: Status = "queued"
    progress: Progress | None = None
    events: list[ModuleEvent] = field(default_factory=list)
    check: RecoveryCheck | None = None
    curve: list[TuningStep] = field(default_factory=list)
    result: Any = None
    error: str | None = None
    created: float = field(default_factory=time.monotonic)
    started: float | None = None
    finished: float | None = None
    abandoned: bool = False
    estimate: float | None = None
    storages: Mapping[int, int] = field(default_factory=dict)
    release_models: Callable[[Any], Any] | None = None
    _cancel: threading.Event = field(default_factory=threading.Event)
    _pause: threading.Event = field(default_factory=threading.Event)
    _held: float = 0.0
    _held_since: float | None = None

    @property
    def active(self) -> bool:
        return self.status in ("queued", "running")

    @property
    def cancelling(self) -> bool:
        """Asked to stop, but still at work until its next safe point."""
        return self.active and self._cancel.is_set()

    @property
    def paused(self) -> bool:
        """Asked to rest after the present module."""
        return self.status == "running" and self._pause.is_set()

    @property
    def resting(self) -> bool:
        """Paused, and the worker has come to rest."""
        return self._held_since is not None

    @property
    def elapsed(self) -> float:
        """Seconds at work so far (waiting and pauses do not count)."""
        if self.started is None:
            return 0.0
        now = self.finished or time.monotonic()
        resting = 0.0 if self._held_since is None else now - self._held_since
        return now - self.started - self._held - resting

    @property
    def fraction(self) -> float:
        """Share of the whole job that is done, in [0, 1]."""
        return 1.0 if self.status == "done" else self.track.fraction

    @property
    def remaining(self) -> float | None:
        """Estimated seconds of work to come; None while there is no telling."""
        if not self.active:
            return None
        paced = self.track.remaining(self.elapsed)
        if paced is None and self.estimate is not None:
            # what is over the estimate is not known to end at once
            return max(self.estimate - self.elapsed, 0.1 * self.estimate)
        return paced if self.status == "running" else None

    def cancel(self) -> None:
        """Ask the work to stop at its next safe point; a waiting job never starts."""
        self._cancel.set()

    def pause(self) -> None:
        """Let the work rest at its next report, until :meth:`resume`."""
        self._pause.set()

    def resume(self) -> None:
        self._pause.clear()

    def rest(self, may_rest: Callable[[], bool]) -> None:
        """Hold the worker while the job is paused and ``may_rest()``; that time does not count."""
        self._held_since = time.monotonic()
        while self.paused and may_rest():
            time.sleep(PAUSE_STEP)
        self._held += time.monotonic() - self._held_since
        self._held_since = None

    def should_cancel(self) -> bool:
        return self._cancel.is_set()

    def report(self, progress: Progress) -> None:
        """The ``progress=`` callback of the engine."""
        self.track.see(progress, self.elapsed)
        self.progress = progress
        if progress.event is not None:
            self.events.append(progress.event)
        if progress.tuning is not None:
            self.curve.append(progress.tuning)
        if progress.check is not None:
            self.check = progress.check
            if progress.check.kept == "plain":  # what was decided so far is undone
                self.events = []
