"""How far a job is as a whole: which step of how many, what share, how long still."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pruning.artifacts.events import Progress
from pruning.artifacts.recipe import Recipe
from pruning.planning.planner import needs_gradients, needs_loss_curves
from pruning.recovery import RECOVERIES


@dataclass(frozen=True)
class Step:
    """One pass of a job: the engine's ``stage``, what people read, and about how long it takes
    compared with the others."""

    stage: str
    title: str
    weight: float


LOAD = Step("load", "loading the model", 0.5)
MEASURE = Step("measure", "measuring", 2.0)
GRADIENTS = Step("measure", "measuring gradients", 4.0)
REWRITE = Step("rewrite", "rewriting calibration text", 1.0)
LOSS_GRADIENTS = Step("measure", "measuring gradients of the loss", 6.0)
EXPECTED_LOSS = Step("measure", "measuring expected losses", 6.0)
PRUNE = Step("prune", "cutting and refitting", 8.0)
TITLES = {
    "load": LOAD.title,
    "measure": MEASURE.title,
    "rewrite": REWRITE.title,
    "prune": PRUNE.title,
    "evaluate": "evaluating",
    "generate": "writing",
    "save": "saving",
    "sweep": "points done",
}
"""Words for stages that a job did not announce."""


def expected_steps(kind: str, about: object) -> tuple[Step, ...]:
    """The steps of a job of this kind about this recipe; those in the cache will be skipped."""
    if kind not in ("measure", "prune") or not isinstance(about, Recipe):
        return ()
    rewriting = _rewrites(about)
    steps = [LOAD, MEASURE]
    if needs_gradients(about):
        steps.append(GRADIENTS)
    if needs_loss_curves(about):
        steps += [REWRITE] * rewriting + [LOSS_GRADIENTS, EXPECTED_LOSS]
    if kind == "prune":
        steps += [REWRITE] * rewriting + [PRUNE]
    return tuple(steps)


def _rewrites(recipe: Recipe) -> bool:
    return RECOVERIES[recipe.recovery.method].uses_tokens and recipe.recovery.copies != 0


class Track:
    """Follows a job's reports through its steps. A pass begins where the stage changes or the
    count falls back; it belongs to the next expected step of that stage, so cached ones are
    passed over. Times are seconds of work since the job began."""

    def __init__(self, steps: Sequence[Step] = ()) -> None:
        self._steps = tuple(steps)
        self._place = -1
        self._last: Progress | None = None
        self._began = self._reported = 0.0
        self._best = 0.0

    def see(self, progress: Progress, at: float) -> None:
        """Take in a report."""
        last = self._last
        if last is None or progress.stage != last.stage or progress.done < last.done:
            self._began = self._reported
            self._place = self._next(progress.stage)
        self._last, self._reported = progress, at
        self._best = max(self._best, self._whole())

    def _next(self, stage: str) -> int:
        later = range(self._place + 1, len(self._steps))
        return next((place for place in later if self._steps[place].stage == stage), self._place)

    @property
    def known(self) -> bool:
        """Whether the present pass is one of the expected steps."""
        last = self._last
        return (
            last is not None and self._place >= 0 and self._steps[self._place].stage == last.stage
        )

    @property
    def fraction(self) -> float:
        """Share of the whole job, in [0, 1]; it never falls. Without expected steps, of the
        present pass; a model that is loaded is where the work begins."""
        if self._steps:
            return self._best
        part = self._part()
        return 0.0 if part == 1.0 and self._last.stage == LOAD.stage else part

    def _part(self) -> float:
        if self._last is None or not self._last.total:
            return 0.0
        return min(1.0, max(0.0, self._last.done / self._last.total))

    def _whole(self) -> float:
        if not self.known:
            return 0.0
        weights = [step.weight for step in self._steps]
        return (sum(weights[: self._place]) + weights[self._place] * self._part()) / sum(weights)

    def remaining(self, at: float) -> float | None:
        """Estimated seconds to come, at ``at``; None until the present pass has begun to count.
        A sweep's first point is the dense model, which says nothing about the pruned ones."""
        part, spent = self._part(), self._reported - self._began
        if part <= 0.0 or spent <= 0.0 or self._last.stage == "load":
            return None
        if self._last.stage == "sweep" and self._last.done < 2:
            return None
        whole_pass, later = spent / part, 0.0
        if self._steps:
            if not self.known:
                return None
            weights = [step.weight for step in self._steps[self._place :]]
            later = whole_pass * sum(weights[1:]) / weights[0]
        return max(0.0, whole_pass - spent + later - (at - self._reported))

    def line(self) -> str:
        """``step 3 of 4, rewriting calibration text (12 of 40)``."""
        last = self._last
        if last is None:
            return "starting"
        count = f" ({last.done} of {last.total})" if last.total > 1 else ""
        if not self.known:
            return f"{TITLES.get(last.stage, last.stage)}{count}"
        step = self._steps[self._place]
        return f"step {self._place + 1} of {len(self._steps)}, {step.title}{count}"
