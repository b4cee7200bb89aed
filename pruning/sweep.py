"""Perplexity along one setting of a recipe, for several methods; finished points stay on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.artifacts.recipe import Recipe
from pruning.planning.checks import check_recipe
from pruning.presets import PRESETS, with_preset
from pruning.utils.digest import key_of, sha256_of
from pruning.utils.errors import UsageError
from pruning.utils.files import cache_root
from pruning.utils.registry import unknown_name
from pruning.utils.version import __version__

if TYPE_CHECKING:
    from pruning.evaluate import Perplexity
    from pruning.models.loading.loaded import LoadedModel

Axis = Literal["ratio", "tau", "samples"]
AXES: dict[str, str] = {
    "ratio": "share of the blocks' parameters removed",
    "tau": "similarity threshold τ, nats",
    "samples": "calibration samples",
}
"""What can be varied, and its unit. Samples: figure 4 of the paper."""

POINTS_VERSION = 2


@dataclass(frozen=True)
class Sweep:
    """``values`` of ``axis`` for each preset, everything else from ``recipe``; perplexity on the
    first ``windows`` (None: all) windows of ``seq_len`` tokens of ``text``."""

    recipe: Recipe
    axis: Axis
    values: tuple[float, ...]
    presets: tuple[str, ...]
    text: str = "sample"
    seq_len: int = 128
    windows: int | None = 16

    def __post_init__(self) -> None:
        """Raises UsageError, also for values that no recipe takes."""
        if self.axis not in AXES:
            raise unknown_name("axis", self.axis, AXES)
        if not self.values or not self.presets:
            raise UsageError("A sweep needs at least one value and one preset; name some.")
        for preset, value in self.points():
            self.recipe_at(preset, value)

    def points(self) -> list[tuple[str, float]]:
        """``(preset, value)`` in the order of work: every method's first value comes early."""
        return [(preset, value) for value in self.values for preset in self.presets]

    def recipe_at(self, preset: str, value: float) -> Recipe:
        """The whole recipe of one point."""
        recipe = with_preset(self.recipe, preset)
        if self.axis == "tau":
            return recipe.changed(heads={"threshold": value})
        if self.axis == "samples":
            return recipe.changed(calibration={"samples": value}, recovery={"samples": None})
        # a budget takes what a method's own units allow, so that methods are compared at one size
        if not 0.0 <= value < 1.0:
            raise UsageError(f"A ratio of {value:g} is not possible; choose one from 0 to below 1.")
        budget = {"kept": round(1.0 - value, 9), "of": "blocks", "megabytes": None}
        return recipe.changed(heads={"threshold": None}, budget=budget)


@dataclass(frozen=True)
class SweepPoint:
    """One finished point. ``perplexity`` None: it overflows. ``kept``: share of the blocks'
    parameters that is left; ``seconds``: pruning and evaluating. ``preset`` of the dense model
    is ``dense`` and its ``value`` None."""

    preset: str
    value: float | None
    perplexity: float | None
    nll: float
    kept: float
    parameters: int
    seconds: float
    protocol: str


def sweep(
    loaded: LoadedModel,
    wanted: Sweep,
    *,
    on_point: Callable[[SweepPoint], None] = lambda point: None,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> list[SweepPoint]:
    """The dense point and every point of ``wanted``; those on disk are not computed again.

    ``on_point`` gets each point once it is there. Cancelling (or a crash) loses only the point that
    is being computed.
    Raises what :func:`pruning.pipeline.prune` and :func:`pruning.evaluate.perplexity` raise.
    """
    shape = loaded.shape
    for point in wanted.points():
        check_recipe(wanted.recipe_at(*point), shape)
    store = _Store(loaded, wanted)
    tasks: list[tuple[str, float | None]] = [("dense", None), *wanted.points()]
    points = []
    for done, (preset, value) in enumerate(tasks):
        stop_if(should_cancel)
        name = "dense" if value is None else f"{PRESETS.entry(preset).title} at {value:g}"

        def report(step: Progress, done: int = done, name: str = name) -> None:
            progress(Progress("sweep", done, len(tasks), f"{name}: {step.message}"))

        callbacks = {"progress": report, "should_cancel": should_cancel}
        recipe = None if value is None else wanted.recipe_at(preset, value)
        point = store.get(recipe)
        if point is None:
            point = store.put(recipe, _compute(loaded, wanted, preset, value, recipe, callbacks))
        # two presets may come to the same recipe: the name is that of this place
        point = replace(point, preset=preset, value=value)
        points.append(point)
        on_point(point)
        progress(Progress("sweep", done + 1, len(tasks), name))
    return points


def _compute(
    loaded: LoadedModel,
    wanted: Sweep,
    preset: str,
    value: float | None,
    recipe: Recipe | None,
    callbacks: dict[str, Any],
) -> SweepPoint:
    """Prune and evaluate; the pruned model is not kept."""
    from pruning.evaluate import perplexity
    from pruning.pipeline import prune

    model, kept, seconds = loaded.model, 1.0, 0.0
    if recipe is not None:
        run = prune(loaded, recipe, **callbacks)
        model, kept, seconds = run.pruned.model, run.report.kept_block_parameters, run.seconds
    score: Perplexity = perplexity(
        model,
        loaded.tokenizer,
        wanted.text,
        seq_len=wanted.seq_len,
        windows=wanted.windows,
        **callbacks,
    )
    return SweepPoint(
        preset=preset,
        value=value,
        perplexity=score.perplexity if math.isfinite(score.perplexity) else None,
        nll=score.nll,
        kept=kept,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        seconds=round(seconds + score.seconds, 3),
        protocol=score.protocol(),
    )


class _Store:
    """Points in one file of JSON lines per model and evaluation, each under its recipe's key."""

    def __init__(self, loaded: LoadedModel, wanted: Sweep) -> None:
        self._loaded, self._texts = loaded, {}
        made_from = [
            POINTS_VERSION,
            __version__,
            loaded.identity,
            loaded.revision,
            loaded.dtype,
            *([loaded.saved_dtype] if loaded.saved_dtype != loaded.dtype else []),
            self._text(wanted.text, "test"),
            wanted.seq_len,
            wanted.windows,
        ]
        self.path: Path = cache_root() / "sweeps" / f"{key_of(made_from)}.jsonl"
        self._points = self._read()

    def get(self, recipe: Recipe | None) -> SweepPoint | None:
        """The stored point of ``recipe`` (None: the dense model)."""
        return self._points.get(self._recipe_key(recipe))

    def put(self, recipe: Recipe | None, point: SweepPoint) -> SweepPoint:
        """Append ``point``; a full disk must not lose the sweep that is in memory."""
        key = self._recipe_key(recipe)
        self._points[key] = point
        line = json.dumps({"key": key, **asdict(point)}, allow_nan=False)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                # a line torn by a crash ends here, so this one is whole
                file.write(f"\n{line}\n")
        except OSError:
            pass
        return point

    def _read(self) -> dict[str, SweepPoint]:
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return {}
        points = {}
        for line in lines:
            try:
                data = json.loads(line)
                key = data.pop("key")
                points[key] = SweepPoint(**data)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue  # empty or torn: that point is computed again
        return points

    def _recipe_key(self, recipe: Recipe | None) -> str:
        if recipe is None:
            return "dense"
        # the model is in the file's name by its contents, whatever the recipe calls it
        data = recipe.model_dump(exclude={"model"})
        text = recipe.calibration
        return key_of([data, self._text(text.source, "train", text.text_field)])

    def _text(self, source: str, split: Literal["train", "test"], field: str | None = None) -> str:
        """What a corpus holds: a file of the same name may change."""
        from pruning.data.corpora.base import CORPORA, TextCorpus
        from pruning.data.windows import read_text

        if source in CORPORA and not isinstance(CORPORA[source], TextCorpus):
            return source
        if (source, split, field) not in self._texts:
            text = read_text(source, split, field)
            self._texts[source, split, field] = sha256_of([text.encode()])
        return self._texts[source, split, field]
