"""From an experiment and a model to recipes: one place in the table each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pruning.artifacts.measurement import Measurement
from pruning.artifacts.plan import Plan
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.rules import LN2
from pruning.experiments.base import Experiment, Method, Sampling, recipe_of
from pruning.experiments.facts import PaperModel
from pruning.planning.allocation.ranking import standardised, weakest
from pruning.planning.planner import make_plan
from pruning.recovery import RECOVERIES

if TYPE_CHECKING:
    from pruning.models.loading.loaded import LoadedModel

DENSE = "Dense"


@dataclass(frozen=True)
class Place:
    """One row: ``recipe`` None for the dense model. ``paper``: the row's name in the paper."""

    method: str
    setting: str
    paper: str
    recipe: Recipe | None
    x: float | None = None

    @property
    def name(self) -> str:
        """Of one row, for people."""
        return ", ".join(part for part in (self.method, self.setting) if part)


def places(
    experiment: Experiment,
    loaded: LoadedModel,
    sampling: Sampling,
    *,
    quick: bool,
    known: PaperModel | None,
    seed: int,
    **callbacks: Any,
) -> list[Place]:
    """The dense model, then every row of every setting. Experiments on heads alone measure the
    model here (``callbacks``: progress and should_cancel). Raises UsageError."""
    dtype = loaded.dtype if loaded.dtype in ("float32", "bfloat16", "float16") else "auto"
    model = {"source": loaded.source, "revision": loaded.revision, "dtype": dtype}
    base = sampling.recipe(seed).changed(model=model)
    depth = len(loaded.adapter.model_shape(loaded.model).blocks)
    if experiment.kind == "heads":
        blocks = experiment.blocks.among(depth)
        rows = _heads_alone(experiment, loaded, base, blocks, known, callbacks)
    else:
        rows = _grid(experiment, base, depth, sampling, quick, known)
    return [Place(DENSE, "", DENSE, None), *rows]


def expected_recipes(
    experiment: Experiment,
    sampling: Sampling,
    depth: int,
    *,
    quick: bool,
    known: PaperModel | None,
    seed: int,
) -> list[Recipe | None]:
    """Recipes that take as long as those of :func:`places`, in its order, without a model: which
    heads go is not known yet where they go alone."""
    base = sampling.recipe(seed)
    if experiment.kind == "heads":
        rows = [
            recipe_of(method, base).changed(heads={"ratio": share}, ffn={"ratio": 0.0})
            for share in experiment.sizes.values()
            for method in experiment.methods
        ]
        return [None, *rows]
    grid = _grid(experiment, base, depth, sampling, quick, known)
    return [None, *(place.recipe for place in grid)]


def _grid(
    experiment: Experiment,
    base: Recipe,
    depth: int,
    sampling: Sampling,
    quick: bool,
    known: PaperModel | None,
) -> Iterator[Place]:
    """The rows of a grid of methods and sizes, or of methods and numbers of samples."""
    blocks = experiment.blocks.among(depth) if known is None else range(*known.blocks)
    if experiment.columns(quick):
        return _along_samples(experiment, base, blocks, depth, experiment.columns(quick))
    return _sized(experiment, base, blocks, depth, sampling)


def _cut(method: Method, base: Recipe, blocks: range, depth: int, size: float) -> Recipe:
    """``size`` of the units of ``blocks`` go, or as many parameters from all blocks."""
    span = range(depth) if method.everywhere else blocks
    kept = round(1.0 - size * len(blocks) / depth, 9)
    return recipe_of(method, base).changed(
        blocks={"start": span.start, "end": span.stop},
        budget={"kept": kept, "of": "blocks", "megabytes": None},
    )


def _sized(
    experiment: Experiment, base: Recipe, blocks: range, depth: int, sampling: Sampling
) -> Iterator[Place]:
    for setting, size in experiment.sizes.items():
        for method in experiment.methods:
            recipe = _cut(method, base, blocks, depth, size)
            if RECOVERIES[recipe.recovery.method].uses_tokens:  # else more text is only read
                recipe = recipe.changed(recovery={"samples": sampling.recovery_samples})
            yield Place(method.label, setting, method.paper_label, recipe)


def _along_samples(
    experiment: Experiment, base: Recipe, blocks: range, depth: int, columns: tuple[int, ...]
) -> Iterator[Place]:
    """Figure 4: the paper has LLaMA-7B without recovery and GPT-2 with it."""
    (size,) = experiment.sizes.values()
    for samples in columns:
        for method in experiment.methods:
            recipe = _cut(method, base, blocks, depth, size)
            recipe = recipe.changed(
                calibration={"samples": samples}, recovery={"samples": None, "copies": 0}
            )
            paper = f"Ours, {samples} samples" if method.paper_label else ""
            yield Place(method.label, f"{samples} samples", paper, recipe, samples)


def _heads_alone(
    experiment: Experiment,
    loaded: LoadedModel,
    base: Recipe,
    blocks: range,
    known: PaperModel | None,
    callbacks: dict[str, Any],
) -> Iterator[Place]:
    """Similar heads at τ, then as many heads by every other method."""
    from pruning.pipeline import measure_model

    for setting, share in experiment.sizes.items():
        count = -1
        for method in experiment.methods:
            recipe = recipe_of(method, base).changed(
                blocks={"start": blocks.start, "end": blocks.stop},
                heads={"policy": "kv_group", "ratio": 0.0, "threshold": None},
                ffn={"ratio": 0.0},
                allocation="by_hand",
            )
            if recipe.recovery.method == "none":
                recipe = recipe.changed(recovery={"rescore": False})
            measurement = measure_model(loaded, recipe, **callbacks)
            label = method.label
            if count < 0:  # the first method is similarity, which sets the number
                tau = experiment.tau[setting] if known else _threshold(measurement, recipe, share)
                recipe = recipe.changed(heads={"threshold": tau})
                count = removed_heads(make_plan(measurement, recipe))
                label = f"Ours (τ={tau:.4g})"
            else:
                flap = method.preset == "flap"
                taken = (_ranked if flap else _evenly)(measurement, recipe, blocks, count)
                recipe = recipe.changed(by_hand=taken)
            paper = label if label.startswith("Ours") else method.paper_label
            paper = paper.replace("τ", "tau") if known else method.paper_label
            shown = setting if known else f"{share:.1%} of heads"
            yield Place(label, shown, paper, recipe)


def removed_heads(plan: Plan) -> int:
    return sum(len(block.attention.removed) for block in plan.blocks)


def _threshold(measurement: Measurement, recipe: Recipe, share: float) -> float:
    """The τ in nats at which similarity removes the nearest share of all heads."""
    heads = sum(block.attention.units for block in measurement.shape.blocks)
    low, high = 0.0, LN2
    tried: dict[float, float] = {}
    for _ in range(20):
        tau = (low + high) / 2
        plan = make_plan(measurement, recipe.changed(heads={"threshold": tau}))
        tried[tau] = removed_heads(plan) / heads
        low, high = (tau, high) if tried[tau] < share else (low, tau)
    distances = [(abs(found - share), tau) for tau, found in tried.items()]
    return round(min(distances)[1], 6)


def _groups(measurement: Measurement, index: int) -> tuple[int, int]:
    """Groups of heads that go together in a block, and heads in each."""
    shape = measurement.shape.blocks[index].attention
    return shape.units // shape.units_per_group, shape.units_per_group


def _shares(measurement: Measurement, blocks: range, counts: list[int]) -> dict[int, Any]:
    """Ratios by hand: so many groups of heads in each block."""
    found = {}
    for index, count in zip(blocks, counts, strict=True):
        groups, _ = _groups(measurement, index)
        found[index] = {"heads": min(count, groups - 1) / groups, "ffn": 0.0}
    return found


def _evenly(measurement: Measurement, recipe: Recipe, blocks: range, count: int) -> dict[int, Any]:
    """As many from every block, the rest from blocks at even distances."""
    _, size = _groups(measurement, blocks.start)
    ends = [count // size * (place + 1) // len(blocks) for place in range(len(blocks))]
    return _shares(measurement, blocks, np.diff([0, *ends]).tolist())


def _ranked(measurement: Measurement, recipe: Recipe, blocks: range, count: int) -> dict[int, Any]:
    """The weakest of all blocks together, by FLAP's standardised scores."""
    scores, sizes = [], []
    for index in blocks:
        groups, size = _groups(measurement, index)
        heads = standardised(measurement, recipe, index, "attention")
        scores.append(heads.reshape(groups, size).mean(axis=1))
        sizes.append(float(size))
    return _shares(measurement, blocks, weakest(scores, sizes, count))
