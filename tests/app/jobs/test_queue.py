"""The queue: order, cancelling, failure in one sentence, bounds."""

from __future__ import annotations

import threading
import time

import pytest

from app.jobs import queue
from app.jobs.queue import JobManager
from pruning.artifacts.events import Progress, stop_if
from pruning.utils.errors import Cancelled, HeadroomError
from tests.helpers import PATIENCE
from tests.helpers.waiting import Clock, wait_for


@pytest.fixture
def manager():
    return JobManager()


def submit(manager, work, queue_name="cpu", owner="me", **more):
    return manager.submit("prune", "Prune demo", work, owner=owner, queue_name=queue_name, **more)


def test_jobs_of_one_lane_run_one_after_another(manager):
    gate, order = threading.Event(), []

    def work(name):
        def run(progress, should_cancel):
            gate.wait(PATIENCE)
            order.append(name)

        return run

    first, second, third = (submit(manager, work(name)) for name in "abc")
    wait_for(lambda: first.status == "running")
    assert [manager.ahead(job) for job in (first, second, third)] == [0, 1, 2]
    assert second.status == third.status == "queued"
    gate.set()
    wait_for(lambda: third.status == "done")
    assert order == ["a", "b", "c"]


def test_lanes_do_not_wait_for_each_other(manager):
    gate = threading.Event()
    slow = submit(manager, lambda p, c: gate.wait(PATIENCE), queue_name="cuda")
    quick = submit(manager, lambda p, c: "fast", queue_name="cpu")
    wait_for(lambda: quick.status == "done")
    assert quick.result == "fast" and slow.active
    gate.set()


def test_cancel_of_a_running_job(manager):
    def run(progress, should_cancel):
        while True:
            stop_if(should_cancel)
            time.sleep(0.005)

    job = submit(manager, run)
    wait_for(lambda: job.status == "running")
    manager.cancel(job)
    assert job.cancelling or job.status == "cancelled"
    wait_for(lambda: job.status == "cancelled")
    assert job.error and job.result is None


def test_a_waiting_job_that_is_cancelled_never_starts(manager):
    gate, ran = threading.Event(), []
    submit(manager, lambda p, c: gate.wait(PATIENCE))
    waiting = submit(manager, lambda p, c: ran.append(1))
    manager.cancel(waiting)
    assert waiting.status == "cancelled"
    gate.set()
    last = submit(manager, lambda p, c: None)
    wait_for(lambda: last.status == "done")
    assert not ran


@pytest.mark.parametrize(
    ("raised", "status", "part"),
    [
        (HeadroomError("No such model."), "failed", "No such model."),
        (ValueError("bad\nsecond line"), "failed", "ValueError: bad"),
        (MemoryError(), "failed", "not enough memory"),
        (Cancelled("Cancelled; the model is as it was."), "cancelled", "as it was"),
    ],
)
def test_every_ending_is_one_sentence(manager, raised, status, part):
    def run(progress, should_cancel):
        raise raised

    job = submit(manager, run)
    wait_for(lambda: not job.active)
    assert job.status == status and part in job.error and "\n" not in job.error
    assert job.error.endswith((".", "details."))


def test_the_worker_survives_a_failure(manager):
    def bad(progress, should_cancel):
        raise RuntimeError("no")

    submit(manager, bad)
    after = submit(manager, lambda p, c: 7)
    wait_for(lambda: after.status == "done")
    assert after.result == 7


def test_progress_and_time(manager):
    gate = threading.Event()

    def run(progress, should_cancel):
        progress(Progress("prune", 1, 4, "block 0"))
        gate.wait(PATIENCE)

    job = submit(manager, run)
    wait_for(lambda: job.progress is not None)
    assert job.fraction == 0.25 and job.elapsed > 0
    gate.set()
    wait_for(lambda: job.status == "done")
    assert job.fraction == 1.0


def test_ids_cannot_be_guessed_and_unknown_ones_find_nothing(manager):
    ids = {submit(manager, lambda p, c: None).id for _ in range(20)}
    assert len(ids) == 20 and all(len(name) >= 16 for name in ids)
    assert manager.get("x") is None and manager.get(None) is None


def run_heavy(manager, count, owner="me", size=1):
    made = [
        submit(
            manager, lambda p, c: object(), owner=owner, storage_bytes=lambda held: {id(held): size}
        )
        for _ in range(count)
    ]
    wait_for(lambda: not any(job.active for job in made))
    last = submit(manager, lambda p, c: None, owner="nobody")
    wait_for(lambda: not last.active)
    return made


def test_each_owner_keeps_a_few_pruned_models():
    manager = JobManager(keep_heavy_each=2)
    mine, theirs = run_heavy(manager, 4), run_heavy(manager, 2, owner="you")
    assert manager.of("me") == mine[-2:]
    assert manager.of("you") == theirs


def test_pruned_models_are_kept_within_a_number_of_bytes():
    manager = JobManager(keep_heavy_each=9, heavy_bytes=25)
    made = run_heavy(manager, 4, size=10)
    assert manager.of("me") == made[-2:]
    (huge,) = run_heavy(manager, 1, owner="you", size=100)
    assert manager.of("you") == [huge] and manager.of("me") == []


def test_a_job_that_nobody_looks_at_ends_after_the_grace(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(queue, "time", clock)
    manager = JobManager(grace=60.0)

    def run(progress, should_cancel):
        while True:
            stop_if(should_cancel)
            time.sleep(0.005)

    watched, left = submit(manager, run, owner="here"), submit(manager, run, "cuda", "gone")
    waiting = submit(manager, run, owner="gone")
    wait_for(lambda: watched.status == left.status == "running")
    for _ in range(2):
        clock.go_on(40)
        manager.seen("here")
    wait_for(lambda: not left.active)
    assert left.status == "cancelled" and "nobody had it open" in left.error
    assert not waiting.active and waiting.started is None and "nobody had it open" in waiting.error
    assert watched.status == "running"
    manager.cancel(watched)


def reporting(count, gate):
    def run(progress, should_cancel):
        for done in range(count):
            stop_if(should_cancel)
            progress(Progress("prune", done + 1, count, f"block {done}"))
            gate.wait(PATIENCE)

    return run


def test_a_paused_job_rests_between_modules_and_does_not_count_the_time(manager):
    gate = threading.Event()
    job = submit(manager, reporting(3, gate))
    wait_for(lambda: job.progress is not None)
    job.pause()
    gate.set()
    wait_for(lambda: job.resting)
    before = job.elapsed
    time.sleep(0.15)  # however long: the time of a pause does not count
    assert job.progress.done == 2 and job.elapsed == pytest.approx(before, abs=1e-6)
    job.resume()
    wait_for(lambda: job.status == "done")


def test_a_pause_never_holds_up_others_and_can_be_cancelled(manager):
    gate = threading.Event()
    gate.set()
    job = submit(manager, reporting(3, gate))
    job.pause()
    other = submit(manager, lambda p, c: "mine", owner="you")
    wait_for(lambda: other.status == "done")
    assert job.status == "done"
    last = submit(manager, reporting(1000, threading.Event()))
    wait_for(lambda: last.progress is not None)
    last.pause()
    manager.cancel(last)


def test_results_that_share_a_model_weigh_it_once():
    manager = JobManager(keep_heavy_each=9, heavy_bytes=25, held_elsewhere=lambda: {7})
    made = []
    for place in range(3):
        weight = {1: 20, 7: 1000, 100 + place: 1}
        made.append(submit(manager, lambda p, c: 0, storage_bytes=lambda result, w=weight: w))
    wait_for(lambda: not made[-1].active)
    last = submit(manager, lambda p, c: None, owner="nobody")
    wait_for(lambda: not last.active)
    assert manager.of("me") == made


def test_a_job_can_be_forgotten_once_it_has_ended(manager):
    gate = threading.Event()
    running = submit(manager, lambda p, c: gate.wait(PATIENCE) and stop_if(c))
    waiting = submit(manager, lambda p, c: None)
    wait_for(lambda: running.status == "running")
    manager.forget(waiting)
    manager.forget(running)
    assert manager.get(waiting.id) is None and waiting.status == "cancelled"
    assert manager.get(running.id) is running  # others still count it as ahead of them
    gate.set()
    wait_for(lambda: running.status == "cancelled")
    manager.forget(running)
    assert manager.of("me") == []
