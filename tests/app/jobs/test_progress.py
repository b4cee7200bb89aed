"""The bar of a whole job: it names its step, never falls, and guesses the time left."""

from __future__ import annotations

from app.jobs import tasks
from app.jobs.job import Job
from app.jobs.model_store import ModelStore
from app.jobs.progress import LOAD, POINTS, Step, Track, measure_steps, prune_steps
from app.session import state
from pruning.artifacts.events import Progress, RecoveryCheck
from tests.helpers.recipes import plain_recipe

STEPS = (Step("load", "loading", 1), Step("measure", "measuring", 1), Step("prune", "cutting", 2))


def follow(track, *reports):
    """``(stage, done, total, seconds)`` each; the fractions after them."""
    fractions = []
    for stage, done, total, at in reports:
        track.see(Progress(stage, done, total, "x"), at)
        fractions.append(track.fraction)
    return fractions


def test_the_bar_is_of_the_whole_job():
    track = Track(STEPS)
    seen = follow(
        track,
        ("load", 0, 1, 0),
        ("load", 1, 1, 4),
        ("measure", 1, 2, 5),
        ("measure", 2, 2, 6),
        ("prune", 1, 4, 7),
    )
    assert seen == [0, 0.25, 0.375, 0.5, 0.625]
    assert track.line() == "step 3 of 3, cutting (1 of 4)"


def test_a_cached_step_is_passed_over():
    track = Track(STEPS)
    assert follow(track, ("load", 1, 1, 1), ("prune", 0, 4, 1)) == [0.25, 0.5]


def test_a_repeated_stage_is_the_next_step_and_the_bar_never_falls():
    recipe = plain_recipe().changed(ffn={"score": "taylor_vector"}, seed=5)
    steps = tasks.pruning_run(ModelStore(), recipe, "cpu").steps
    stages = [step.stage for step in steps]
    assert stages == ["load", "measure", "measure", "rewrite", "prune", "check"]
    track = Track(steps)
    reports = [
        (stage, done, 3, 10 * place + done)
        for place, stage in enumerate(stages)
        for done in (1, 2, 3)
    ]
    seen = follow(track, *reports)
    assert seen == sorted(seen) and seen[-1] == 1.0
    unannounced = Track(STEPS)
    seen = follow(unannounced, ("prune", 4, 4, 1), ("measure", 1, 4, 2))
    assert seen == [1.0, 1.0] and unannounced.line() == "measuring (1 of 4)"


def test_what_runs_follows_the_recipe():
    plain = plain_recipe().changed(recovery={"method": "none"}, seed=5)
    assert [s.stage for s in prune_steps(plain)] == ["measure", "prune"]
    assert [s.stage for s in measure_steps(plain)] == ["measure"]
    unchecked = state.initial_recipe().changed(recovery={"keep_better": False})
    assert [s.stage for s in prune_steps(unchecked)] == ["prune"]
    # what is shipped is not measured again
    assert [s.stage for s in prune_steps(plain.changed(seed=0))] == ["prune"]
    assert [s.stage for s in prune_steps(state.initial_recipe())] == ["prune", "check"]


def test_time_left():
    track = Track(STEPS)
    assert track.remaining(0) is None
    follow(track, ("load", 1, 1, 4), ("measure", 1, 2, 5))
    # half of measuring took 1 s: 1 s more, then cutting, which is twice as long
    assert track.remaining(5) == 5 and track.remaining(7) == 3 and track.remaining(99) == 0
    alone = Track()
    follow(alone, ("evaluate", 1, 4, 2))
    assert alone.remaining(2) == 6 and alone.fraction == 0.25


def test_the_dense_point_of_a_sweep_says_nothing_about_the_time_that_pruned_ones_take():
    track = Track((POINTS,))
    follow(track, ("sweep", 1, 4, 5), ("sweep", 1, 4, 60))
    assert track.line() == "points done (1 of 4)" and track.remaining(60) is None
    follow(track, ("sweep", 2, 4, 90))
    assert track.remaining(90) == 90


def test_loading_says_nothing_about_the_time_that_the_work_takes():
    track = Track((LOAD, POINTS))
    seen = follow(track, ("load", 0, 1, 0), ("load", 1, 1, 9))
    assert track.remaining(9) is None and seen[-1] < 0.1
    follow(track, ("sweep", 2, 4, 29))
    assert track.line() == "step 2 of 2, points done (2 of 4)" and track.remaining(29) == 20


def test_work_that_announced_no_steps_is_what_it_does_now():
    track = Track()
    assert follow(track, ("load", 4, 4, 1), ("evaluate", 1, 2, 2)) == [1, 0.5]
    assert track.line() == "evaluate (1 of 2)"


def test_a_recovery_that_is_undone_takes_its_decisions_along():
    def checked(kept: str) -> Job:
        check = RecoveryCheck(4.0, 3.5, 8, 16, kept, 0.1)
        job = Job("1", "me", "prune", "Prune", "q", None)
        job.report(Progress("prune", 1, 2, "", event="recovered"))
        job.report(Progress("check", 1, 1, check.sentence(), check=check))
        job.report(Progress("prune", 1, 2, "", event="again"))
        assert job.check == check
        return job

    assert checked("plain").events == ["again"]
    assert checked("recovered").events == ["recovered", "again"]
