"""How far a job is as a whole: which step of how many, what share, how long still."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pruning.artifacts.comparison import Questions
from pruning.artifacts.events import Progress
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.shipped import is_measured
from pruning.planning.planner import needs_gradients, needs_loss_curves
from pruning.recovery import copies_of, held_out_windows
from pruning.tuning import TUNINGS


@dataclass(frozen=True)
class Step:
    """One pass of a job: the engine's ``stage``, what people read, and about how long it takes
    compared with the others. ``paced_from``: how many reports it takes until their pace says how
    long the rest will need. ``says``: what is read beside the title."""

    stage: str
    title: str
    weight: float = 1.0
    paced_from: float = 0
    says: Literal["count", "message", "both"] = "count"


LOAD = Step("load", "loading the model", 0.5, paced_from=math.inf)
LOOK = Step("patterns", "reading the sentence")
TRY = Step("what_if", "running the changed model")
MEASURE = Step("measure", "measuring", 2.0)
GRADIENTS = Step("measure", "measuring gradients", 4.0)
RESAMPLE = Step("rewrite", "resampling calibration text", 1.0)
LOSS_GRADIENTS = Step("measure", "measuring gradients of the loss", 6.0)
LOSS_CURVES = Step("measure", "measuring loss curves", 6.0)
PRUNE = Step("prune", "cutting and refitting", 8.0)
CHECK = Step("check", "comparing with the plain cut", 0.5)
TUNE = Step("tune", "training", 20.0, paced_from=2)
POINTS = Step("sweep", "points done", 20.0, paced_from=2)
"""The first point is the dense model, which says nothing about the pruned ones."""
CELLS = Step("reproduce", "cells done", 20.0, paced_from=2, says="both")
PROMPTS = Step("continue", "prompts continued", paced_from=1)
TASKS = Step("tasks", "scoring answers", says="message")
EVALUATE = Step("evaluate", "evaluating")
GENERATE = Step("generate", "generating")
SAVE = Step("save", "saving")
READ = Step("evaluate", "reading a text with both models", 2.0)
TIME = Step("evaluate", "timing both models", 2.0)
WRITE = Step("generate", "letting both models write", 2.0, paced_from=1)


def measure_steps(recipe: Recipe) -> tuple[Step, ...]:
    """The passes of a measurement for ``recipe``; those in the cache will be skipped."""
    curves = (LOSS_GRADIENTS, LOSS_CURVES)
    gradients = (GRADIENTS,) if needs_gradients(recipe) else ()
    if is_measured(recipe):
        return gradients
    return (MEASURE, *gradients, *(curves if needs_loss_curves(recipe) else ()))


def prune_steps(recipe: Recipe) -> tuple[Step, ...]:
    """The passes of a whole run of ``recipe``."""
    check = (CHECK,) if held_out_windows(recipe) else ()
    resample = (RESAMPLE,) if copies_of(recipe) else ()
    tune = (TUNE,) if TUNINGS[recipe.tune.method].prepare else ()
    return (*measure_steps(recipe), *resample, PRUNE, *check, *tune)


def question_steps(questions: Questions) -> tuple[Step, ...]:
    """What is asked of both models after a run."""
    asked = {READ: questions.text, TIME: questions.speed or None, WRITE: questions.prompt}
    return tuple(step for step, wanted in asked.items() if wanted is not None)


class Track:
    """Follows a job's reports through the steps that it announced. A pass begins where the stage
    changes or the count falls back; it belongs to the next announced step of that stage, so
    cached ones are passed over. Times are seconds of work since the job began."""

    def __init__(self, steps: Sequence[Step] = ()) -> None:
        self._announced = bool(steps)
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
            self._begin(progress.stage)
        self._last, self._reported = progress, at
        self._best = max(self._best, self._whole())

    def _begin(self, stage: str) -> None:
        if not self._announced:  # whatever runs is then the whole
            self._steps, self._place, self._best = (Step(stage, stage),), 0, 0.0
        later = range(self._place + 1, len(self._steps))
        self._place = next((p for p in later if self._steps[p].stage == stage), self._place)

    def _step(self) -> Step | None:
        """The step that the present pass is; None when it was not announced."""
        if self._last is None or self._place < 0:
            return None
        step = self._steps[self._place]
        return step if step.stage == self._last.stage else None

    @property
    def fraction(self) -> float:
        """Share of the whole job, in [0, 1]; among announced steps it never falls."""
        return self._best

    def _part(self) -> float:
        if self._last is None or not self._last.total:
            return 0.0
        return min(1.0, max(0.0, self._last.done / self._last.total))

    def _whole(self) -> float:
        if self._step() is None:
            return 0.0
        weights = [step.weight for step in self._steps]
        return (sum(weights[: self._place]) + weights[self._place] * self._part()) / sum(weights)

    def remaining(self, at: float) -> float | None:
        """Estimated seconds to come, at ``at``; None until the present pass has a pace."""
        step, part, spent = self._step(), self._part(), self._reported - self._began
        if step is None or part <= 0.0 or spent <= 0.0 or self._last.done < step.paced_from:
            return None
        later = sum(step.weight for step in self._steps[self._place + 1 :]) / step.weight
        return max(0.0, spent / part * (1 + later) - spent - (at - self._reported))

    def line(self) -> str:
        """``step 3 of 4, resampling calibration text (12 of 40)``."""
        last, step = self._last, self._step()
        if last is None:
            return "starting"
        says = "count" if step is None else step.says
        count = f"{last.done} of {last.total}" if last.total > 1 and says != "message" else ""
        parts = [count, last.message if says != "count" else ""]
        count = f" ({'; '.join(filter(None, parts))})" if any(parts) else ""
        if step is None:
            titles = {step.stage: step.title for step in self._steps}
            return f"{titles.get(last.stage, last.stage)}{count}"
        number = f"step {self._place + 1} of {len(self._steps)}, " if len(self._steps) > 1 else ""
        return f"{number}{step.title}{count}"
