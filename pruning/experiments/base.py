"""What an experiment is: a grid of recipes as data, and how it is evaluated.

Add one: a YAML file in this folder; :class:`Experiment` explains the fields.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pruning import registries
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.zero_shot import TASK_NAMES
from pruning.presets import with_preset
from pruning.utils import plain_yaml
from pruning.utils.errors import UsageError, one_line
from pruning.utils.registry import LAST, Entry, Registry

Kind = Literal["grid", "heads", "graphs", "activations"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Method(_Strict):
    """One row of a grid: a preset and sections of a recipe that go over it.

    ``paper``: the row's name in the paper (None: as ``label``; empty: it has none); ``everywhere``:
    its authors cut all blocks, so its share is spread over all of them.
    """

    label: str
    preset: str
    changes: dict[str, Any] = {}
    paper: str | None = None
    everywhere: bool = False

    @property
    def paper_label(self) -> str:
        return self.label if self.paper is None else self.paper


class Blocks(_Strict):
    """Blocks [``start``, ``end``) of ``of``, or the same shares of another depth."""

    start: int
    end: int
    of: int

    def among(self, depth: int) -> range:
        """The blocks of a model with ``depth`` of them; at least one."""
        start = round(depth * self.start / self.of)
        return range(start, max(depth - round(depth * (self.of - self.end) / self.of), start + 1))


def named_text(text: str) -> tuple[str, str]:
    """The name of a text in tables and where it is: ``NAME=PATH``, a path, or a corpus."""
    name, given, path = text.partition("=")
    if given and name.isidentifier() and not os.path.exists(text):
        return name, path
    return os.path.basename(text) or text, text


class Sampling(_Strict):
    """Text and its amount. ``texts`` (see :func:`named_text`): perplexity on the first ``windows``
    (None: all) windows of ``seq_len`` tokens of each; ``samples`` calibration windows of
    ``calibration`` for the scores, ``recovery_samples`` (None: the same) for recovery; ``limit``:
    items of each task."""

    texts: tuple[str, ...] = ("wikitext2", "ptb")
    windows: int | None = None
    seq_len: int = 128
    calibration: str = "wikitext2"
    samples: int = 16
    recovery_samples: int | None = 1024
    limit: int | None = None

    def recipe(self, seed: int) -> Recipe:
        """A recipe with this calibration set, that every row begins with."""
        text = {"source": self.calibration, "samples": self.samples, "seq_len": self.seq_len}
        return Recipe().changed(calibration=text, seed=seed)


class Experiment(_Strict):
    """One table or figure. ``sizes`` by their name in the paper: shares of the units of the pruned
    ``blocks`` (kind ``heads``: of all heads) that go. ``along_samples``: the numbers of calibration
    windows that the columns differ in, in place of sizes (figure 4). ``quick`` says what of
    ``sampling`` (and of ``along_samples``) is smaller in a quick run. ``tau``: thresholds in nats
    by size for the paper's own model, or of the graphs. ``table``: its number in ``paper.csv``.
    ``shows``: two sentences on how to read it."""

    name: str
    title: str
    summary: str
    source: str
    kind: Kind = "grid"
    place: int = LAST
    table: tuple[str, ...] = ()
    shows: str = ""
    blocks: Blocks = Blocks(start=4, end=30, of=32)
    sizes: dict[str, float] = {}
    along_samples: tuple[int, ...] = ()
    tau: dict[str, float] = {}
    tasks: tuple[Literal[TASK_NAMES], ...] = ()  # type: ignore[valid-type]
    methods: tuple[Method, ...] = ()
    sampling: Sampling = Sampling()
    quick: dict[str, Any] = {}
    notes: tuple[str, ...] = ()

    @property
    def only_measures(self) -> bool:
        """Whether there are no cells: nothing is pruned, nothing evaluated."""
        return self.kind in ("graphs", "activations")

    def sampled(self, quick: bool, **changes: Any) -> Sampling:
        """The sampling of a full or quick run, with what the caller names besides."""
        smaller = {k: v for k, v in self.quick.items() if k != "along_samples"} if quick else {}
        given = {name: value for name, value in changes.items() if value is not None}
        return Sampling.model_validate({**self.sampling.model_dump(), **smaller, **given})

    def cells(self, quick: bool) -> int:
        """How many models are evaluated: the dense one, and every method in every column."""
        if self.only_measures:
            return 0
        return 1 + len(self.methods) * len(self.columns(quick) or self.sizes)

    def columns(self, quick: bool) -> tuple[int, ...]:
        """Numbers of samples along which the experiment goes."""
        return tuple(
            self.quick.get("along_samples", self.along_samples) if quick else self.along_samples
        )


EXPERIMENTS: Registry[Experiment] = registries.EXPERIMENTS


def read_experiment(path: Path) -> Entry[Experiment]:
    """The experiment of a YAML file; ``like: NAME`` takes what it leaves out from NAME.yaml.
    Raises UsageError, one sentence, when a field or a preset is unknown or wrong."""
    data = _parsed(path)
    if "like" in data:
        data = {**_parsed(path.parent / f"{data.pop('like')}.yaml"), **data}
    try:
        found = Experiment.model_validate(data)
        found.sampled(True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise UsageError(f"{where}: {first['msg']}.") from None
    for method in found.methods:
        recipe_of(method, Recipe())
    return Entry(found.name, found.title, found.summary, found.source, found, place=found.place)


def recipe_of(method: Method, base: Recipe) -> Recipe:
    """``base`` with the preset of ``method`` and its changes; raises UsageError."""
    # a row is what the method does, even where doing nothing would be better
    plain = with_preset(base, method.preset).changed(recovery={"keep_better": False})
    return plain.changed(**method.changes)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        data = plain_yaml.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"it is not valid YAML: {one_line(error)}.") from None
    if not isinstance(data, dict):
        raise UsageError("it is not a mapping.")
    return data
