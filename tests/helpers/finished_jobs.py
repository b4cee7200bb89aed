"""Stand-ins for what comparisons find, and finished jobs that hold them."""

from __future__ import annotations

from dataclasses import dataclass

from app.jobs import compare_tasks, tasks
from app.session import state, visitor_jobs
from pruning.planning import make_plan
from tests.helpers.recipes import plain_recipe
from tests.helpers.stand_ins import OWNER, FakeReport, FakeRun, fake_events, wait_for

EVIL = "<script>alert(1)</script>"


@dataclass(frozen=True)
class Score:
    perplexity: float
    corpus: str = "sample"

    def protocol(self) -> str:
        return f"{self.corpus} (test), tokenised once."


@dataclass(frozen=True)
class Rate:
    prefill: float
    decode: float


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Losses:
    """As the engine's TokenLosses, which imports torch."""

    passages: tuple
    corpus: str = "sample"
    split: str = "test"
    seq_len: int = 3

    def worst(self, count):
        return [(0, 2, 4.0), (0, 1, 0.5)][:count]


@dataclass(frozen=True)
class Passage:
    pieces: tuple = ("The", f" {EVIL}", " sea")
    dense: tuple = (1.0, 2.0)
    pruned: tuple = (1.5, 6.0)
    mean_rise: float = 2.25


LOSSES = Losses((Passage(),))


def add(kind, result, request, **more):
    """A finished job of the visitor."""
    job = visitor_jobs.manager().submit(
        kind, kind, lambda p, c: result, owner=OWNER, queue_name="cpu", request=request, **more
    )
    wait_for(lambda: not job.active)
    return job


def add_run(ratio, **more):
    recipe = plain_recipe().changed(ffn={"ratio": ratio}, heads={"threshold": 0.1}, **more)
    plan = make_plan(state.demo_measurement(), recipe)
    run = FakeRun(plan, FakeReport(plan), events=tuple(fake_events(plan)), recipe=recipe)
    return add(
        "prune",
        run,
        recipe,
        storage_bytes=lambda run: {id(run): 1},
        release_models=tasks.without_models,
    )


def found_things():
    return {
        "perplexity": (compare_tasks.Pair(Score(50.0), Score(60.0)), ("run",)),
        "speed": (compare_tasks.Pair(Rate(10.0, 5.0), Rate(12.0, 6.0)), ("run",)),
        "tokens": (LOSSES, ("run",)),
        "texts": (compare_tasks.Pair(Text("one"), Text(EVIL)), ("run", "Say")),
    }
