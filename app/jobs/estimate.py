"""How long a run will take on this machine, before it starts: counted in forward passes.

A run is a number of passes over its text, and of solves (:mod:`app.jobs.solve_cost`). What they
take comes from their multiply-adds and from how fast this machine multiplies, or reads once a model
is loaded; how far that was off is learned from the runs that finish. The numbers of passes are
those of benchmarks/README.md, *What a run takes*.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from app.jobs import progress, solve_cost
from app.jobs.progress import Step
from pruning.artifacts.comparison import Questions, Speed
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.shapes import ModelShape, footprint, full_widths
from pruning.artifacts.zero_shot import task_tokens
from pruning.experiments.base import Experiment
from pruning.experiments.facts import paper_model
from pruning.experiments.places import expected_recipes
from pruning.experiments.request import Request, adapted
from pruning.recovery import copies_of, held_out_windows
from pruning.sweep import Sweep
from pruning.tuning import held_out_for_tuning

_SIDE, _TURNS = 1024, 7
_READS = 0.6
"""What a model reaches, with short windows and work between its products, of the rate of these."""
_LOAD = 5.0
"""Seconds: importing torch, and one gigabyte of weights in one more."""

CONTEXT = 128
WHOLE_TEXT = 300_000
"""Tokens of a whole text: WikiText2's test part has about as many."""

LATENCY_TURNS = 3
"""How often a cell is timed (:func:`pruning.evaluate.latency`)."""

_TURNS_OF_BOTH, _WRITTEN = 8, 8
"""How often models are timed, and tokens written: see :mod:`pruning.evaluate.comparison`."""


def machine_rate(pause: float = 0.0) -> float:
    """FLOP per second at which a model may read here: a share of that of large float32 products on
    all cores, at its best. With ``pause`` seconds between the turns one of them falls into a moment
    without other work."""
    square = np.ones((_SIDE, _SIDE), dtype=np.float32)
    times = []
    for _ in range(_TURNS):
        time.sleep(pause)
        started = time.perf_counter()
        square @ square
        times.append(time.perf_counter() - started)
    return _READS * 2 * _SIDE**3 / min(times)


@dataclass
class Estimator:
    """``rate``: FLOP per second of a model that reads; ``autocast``: how many times as fast it
    reads where products are taken in bfloat16; ``decoded``: tokens that it reads in the time that
    it writes one; ``factor``: how much longer finished runs took than thought, over ``learned`` of
    them."""

    rate: float
    autocast: float = 1.0
    decoded: float = 40.0
    factor: float = 1.0
    learned: int = 0

    def measured(
        self, speed: Speed, autocast: Speed | None, shape: ModelShape, context: int
    ) -> None:
        """A model of this ``shape`` reads and writes at ``speed`` with so much ``context``, the
        head only for the last token, and at ``autocast`` (None: no faster) in bfloat16."""
        self.rate = speed.prefill * _block_flops(shape, context)
        self.autocast = 1.0 if autocast is None else max(1.0, autocast.prefill / speed.prefill)
        self.decoded = speed.prefill / speed.decode

    def learn(self, thought: float, took: float) -> None:
        """A run that was thought to take ``thought`` seconds took ``took``."""
        if thought > 0 and took > 0:
            self.factor = min(max(self.factor * took / thought, 0.1), 20.0)
            self.learned += 1

    def timed(
        self,
        steps: tuple[Step, ...],
        recipe: Recipe,
        shape: ModelShape,
        questions: Questions | None = None,
        *,
        is_loaded: bool = False,
    ) -> tuple[Step, ...]:
        """``steps`` of a run of ``recipe``, each weighing the seconds it will take."""
        seconds = self._seconds(recipe, shape, questions or Questions(), is_loaded)
        return tuple(
            replace(step, weight=max(0.01, self.factor * seconds[step.title])) for step in steps
        )

    def _seconds(
        self, recipe: Recipe, shape: ModelShape, questions: Questions, is_loaded: bool
    ) -> dict[str, float]:
        text, rule = recipe.calibration, recipe.recovery
        dense = footprint(shape, full_widths(shape), text.seq_len)
        quick = 1.0 if rule.compute == "model" else self.autocast

        def read(tokens: float) -> float:
            return tokens * dense.flops_per_token / self.rate

        def run(tokens: float, faster: float = quick) -> float:
            """Through the blocks alone."""
            return tokens * _block_flops(shape, text.seq_len) / self.rate / faster

        samples = rule.samples or text.samples
        curves = min(text.curve_samples or samples, samples) * text.seq_len
        copies = copies_of(recipe)
        once, fitted = text.samples * text.seq_len, samples * text.seq_len * (1 + copies)
        gradients = text.gradient_samples * text.gradient_seq_len
        probed = min(curves / 2, 128 * text.seq_len)
        # two sides, each reading the text
        asked = 2 * questions.windows * questions.seq_len
        return {
            progress.LOAD.title: 0.1 if is_loaded else _LOAD + dense.bytes / 1e9,
            progress.MEASURE.title: run(1.5 * once, 1.0),
            progress.GRADIENTS.title: 15.0 * read(gradients),
            # all copies come from one pass
            progress.RESAMPLE.title: read(samples * text.seq_len) / quick if copies else 0.0,
            progress.LOSS_GRADIENTS.title: run(3.0 * probed)
            + 3.5 * (read(probed) - run(probed, 1.0)),
            progress.LOSS_CURVES.title: run(curves)
            + solve_cost.of_curves(recipe, shape, curves) / self.rate,
            progress.PRUNE.title: run(1.5 * fitted)
            + solve_cost.of_prune(recipe, shape, fitted) / self.rate,
            progress.CHECK.title: read(2 * held_out_windows(recipe) * text.seq_len),
            # forward by both models, and back through the pruned one
            progress.TUNE.title: read(
                4.5 * recipe.tune.epochs * fitted + 4 * held_out_for_tuning(recipe) * text.seq_len
            ),
            progress.READ.title: read(asked),
            progress.TIME.title: run(_TURNS_OF_BOTH * (128 + _WRITTEN * self.decoded), 1.0),
            progress.WRITE.title: run(2 * questions.new_tokens * self.decoded, 1.0),
        }

    def of_sweep(self, wanted: Sweep, shape: ModelShape) -> float:
        """Seconds of all points of ``wanted``."""
        recipes = [wanted.recipe_at(*point) for point in wanted.points()]
        tokens = wanted.windows * wanted.seq_len if wanted.windows else WHOLE_TEXT
        return self._cells([None, *recipes], shape, tokens)

    def of_experiment(
        self, experiment: Experiment, request: Request, source: str, shape: ModelShape
    ) -> float:
        """Seconds of all cells of ``experiment`` for the model ``source``."""
        sampling, known = adapted(experiment, request, source, shape), paper_model(source, shape)
        how: dict[str, Any] = {"quick": request.quick, "known": known, "seed": request.seed}
        recipes = expected_recipes(experiment, sampling, len(shape.blocks), **how)
        if experiment.only_measures:
            text = {"source": sampling.calibration, "samples": sampling.samples}
            recipe = Recipe().changed(calibration={**text, "seq_len": sampling.seq_len})
            return total(self.timed((progress.MEASURE,), recipe, shape))
        windows = sampling.windows
        tokens = len(sampling.texts) * (windows * sampling.seq_len if windows else WHOLE_TEXT)
        if request.tasks:
            tokens += task_tokens(experiment.tasks, sampling.limit)
        return self._cells(recipes, shape, tokens)

    def of_tasks(self, names: Sequence[str], limit: int | None, shape: ModelShape) -> float:
        """Seconds of zero-shot tasks of both models."""
        return 2 * self._read(task_tokens(names, limit), shape)

    def of_continuations(self, prompts: int, new_tokens: int, shape: ModelShape) -> float:
        """Seconds of :func:`pruning.evaluate.compare_continuations`."""
        return self._read(prompts * new_tokens * (2 * self.decoded + 1), shape)

    def _cells(self, recipes: Sequence[Recipe | None], shape: ModelShape, tokens: float) -> float:
        """Seconds of one cell after the other (None: the dense model), which read so many
        ``tokens`` each; recipes share a measurement where they can."""
        seconds, measured = 0.0, set()
        for recipe in filter(None, recipes):
            steps = progress.prune_steps(recipe)
            key = recipe.calibration.model_dump_json()
            new = [s for s in steps if s.stage != "measure" or (key, s.title) not in measured]
            measured |= {(key, step.title) for step in steps}
            seconds += total(self.timed(tuple(new), recipe, shape, is_loaded=True))
        timing = LATENCY_TURNS * (CONTEXT + _WRITTEN * self.decoded)
        return seconds + len(recipes) * self._read(tokens + timing, shape)

    def _read(self, tokens: float, shape: ModelShape) -> float:
        dense = footprint(shape, full_widths(shape), CONTEXT)
        return self.factor * tokens * dense.flops_per_token / self.rate


def total(steps: tuple[Step, ...]) -> float:
    """Seconds of steps that :meth:`Estimator.timed` gave."""
    return sum(step.weight for step in steps)


def _block_flops(shape: ModelShape, context: int) -> float:
    """FLOP of a token that goes through the blocks alone."""
    dense = footprint(shape, full_widths(shape), context)
    return dense.flops_per_token - 2 * shape.head_weights
