"""Two models, loaded or named by where they lie, compared block by block."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.artifacts.difference import (
    BlockDifference,
    BlockOutput,
    Difference,
    Outputs,
    TensorDifference,
    change_of,
    kept_of,
)
from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.artifacts.plan import Plan
from pruning.artifacts.shapes import KINDS, ModelShape, ModuleKind
from pruning.checkpoint.records import plan_beside
from pruning.data.windows import check_source, evaluation_windows
from pruning.difference.matching import UNMATCHED, Matching, match
from pruning.difference.outputs import Reader, compare_block, compare_predictions
from pruning.difference.tensors import LiveBlock, block_differences, check_finite, whole_differences
from pruning.models.execution.offload import resident
from pruning.models.loading import load
from pruning.models.loading.loaded import LoadedModel
from pruning.models.loading.outline import outline
from pruning.utils.errors import Unsupported, UsageError


@dataclass(frozen=True)
class Passage:
    """The first ``windows`` of ``seq_len`` tokens of the test split of ``text``, a corpus or a
    file."""

    text: str = "sample"
    windows: int = 2
    seq_len: int = 128


@dataclass(frozen=True)
class Version:
    """A model to compare: what it is called, and the plan that made it, where there is one."""

    name: str
    loaded: LoadedModel
    plan: Plan | None = None


def compare_places(
    first: str,
    second: str,
    passage: Passage | None = None,
    *,
    device: str = "auto",
    progress: ProgressCallback = ignore,
) -> Difference:
    """:func:`compare_models` of what lies at two places: ``demo``, hub ids, folders, ``.gguf``
    files. Weights are read from their files one block at a time.

    Raises UsageError for two models that are not of one kind, before weights are read, and what
    loading raises.
    """
    if passage is not None:
        check_source(passage.text, tokens=False)
    shapes = outline(first).shape, outline(second).shape
    check_alike((first, second), shapes)
    versions = []
    for source in (first, second):
        progress(Progress("load", len(versions), 2, source))
        versions.append(opened(source, device))
    progress(Progress("load", 2, 2, second))
    return compare_models(*versions, passage, progress=progress)


def opened(source: str, device: str = "auto") -> Version:
    """The model at a place, its blocks in their files, and the plan that lies beside it."""
    # float32 holds what is stored in any format, and nothing is lost in the forward pass
    try:
        loaded = load(source, dtype=None, device=device, placement="disk")
    except Unsupported:  # experts that are files of their own, which a block joins
        loaded = load(source, dtype=None, device=device)
    return Version(source, loaded, plan_beside(source, loaded.revision))


def check_alike(names: tuple[str, str], shapes: tuple[ModelShape, ModelShape]) -> None:
    """Raise UsageError for models that have no tensors in common."""
    for what, values in {
        "of the family": [shape.family for shape in shapes],
        "of hidden size": [shape.hidden_size for shape in shapes],
        "with a number of blocks of": [len(shape.blocks) for shape in shapes],
    }.items():
        if values[0] != values[1]:
            raise UsageError(
                f"{names[0][:60]} is {what} {values[0]}, and {names[1][:60]} is {what} "
                f"{values[1]}; name two models that come from one."
            )


@torch.no_grad()
def compare_models(
    first: Version,
    second: Version,
    passage: Passage | None = None,
    *,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Difference:
    """What tells ``second`` from ``first``: shapes, shares kept, changes of the weights that both
    have, and, for a ``passage``, how alike their blocks answer. One block of each is looked at at
    a time. Raises UsageError, SourceError (a text that is too short or absent), HeadroomError for
    weights that are not finite, and Cancelled.
    """
    names = first.name, second.name
    models = first.loaded, second.loaded
    shapes = models[0].shape, models[1].shape
    check_alike(names, shapes)
    matching = match(shapes, (first.plan, second.plan), names)
    remarks = [] if matching else [UNMATCHED]
    ids, why_not = _ids(models, passage)
    remarks += [why_not] if why_not else []
    readers = None if ids is None else (Reader(models[0], ids), Reader(models[1], ids))
    tensors: list[TensorDifference] = []
    answers: list[BlockOutput] = []
    for index, pair in _resident_blocks(models):
        stop_if(should_cancel)
        tensors += block_differences(*pair, index, matching)
        if readers is not None:
            answers.append(compare_block(*readers, index))
        progress(Progress("compare", index + 1, len(shapes[0].blocks), f"Block {index}"))
    outputs = None
    if readers is not None and passage is not None and ids is not None:
        outputs = Outputs(passage.text, ids.numel(), tuple(answers), *compare_predictions(*readers))
        if not all(map(math.isfinite, (outputs.divergence, *(a.error for a in answers)))):
            outputs = None
            remarks.append("The outputs of one model overflow, so they were not compared.")
    tensors += _outside(models)
    check_finite(tensors)
    blocks = tuple(_summary(i, tensors, shapes, matching) for i in range(len(shapes[0].blocks)))
    return Difference(
        *names,
        matching.words if matching else UNMATCHED,
        blocks,
        tuple(tensors),
        outputs,
        tuple(remarks),
    )


def _ids(
    models: tuple[LoadedModel, LoadedModel], passage: Passage | None
) -> tuple[Tensor | None, str | None]:
    """Tokens [n, s] of the passage, or why there are none."""
    if passage is None:
        return None, None
    first, second = models
    if first.tokenizer is None:
        return None, "The first model has no tokenizer, so outputs were not compared."
    if first.model.config.vocab_size != second.model.config.vocab_size:
        return None, "The models have different vocabularies, so outputs were not compared."
    longest = min(loaded.adapter.max_positions(loaded.model.config) for loaded in models)
    length = min(passage.seq_len, longest)
    found = evaluation_windows(passage.text, first.model, first.tokenizer, length, passage.windows)
    return found.ids, None


def _resident_blocks(
    models: tuple[LoadedModel, LoadedModel],
) -> Iterator[tuple[int, tuple[LiveBlock, LiveBlock]]]:
    """The blocks of both models, pair after pair, each on its device meanwhile."""
    sides = [loaded.adapter.blocks(loaded.model) for loaded in models]
    prefixes = [_prefix(loaded) for loaded in models]
    for index, blocks in enumerate(zip(*sides, strict=True)):
        with resident(*blocks, then=sides[1][index + 1 : index + 2]):
            first, second = (
                LiveBlock(loaded.adapter, block, f"{prefix}.{index}.")
                for loaded, block, prefix in zip(models, blocks, prefixes, strict=True)
            )
            yield index, (first, second)


def _prefix(loaded: LoadedModel) -> str:
    """The path of a model's list of blocks."""
    blocks = loaded.adapter.blocks(loaded.model)
    return next(path for path, module in loaded.model.named_modules() if module is blocks)


def _outside(models: tuple[LoadedModel, LoadedModel]) -> list[TensorDifference]:
    """Tensors that belong to no block; tied ones count once."""
    named = []
    for loaded in models:
        inside = {id(p) for p in loaded.adapter.blocks(loaded.model).parameters()}
        named.append({n: p for n, p in loaded.model.named_parameters() if id(p) not in inside})
    for here, loaded in zip(named, models, strict=True):
        every = dict(loaded.model.named_parameters(remove_duplicate=False))
        here |= {name: every[name] for side in named for name in side if name in every}
    return whole_differences(*named, None, "outside")


def _summary(
    index: int,
    tensors: list[TensorDifference],
    shapes: tuple[ModelShape, ModelShape],
    matching: Matching | None,
) -> BlockDifference:
    """One block in short; heads and channels are counted without padding."""
    own = [t for t in tensors if t.block == index]
    counts = {kind: _own_units(index, kind, shapes, matching) for kind in KINDS}
    groups = [shape.blocks[index].attention.groups for shape in shapes]
    return BlockDifference(
        index,
        counts["attention"],
        (groups[0], groups[1]),
        counts["ffn"],
        kept_of(own),
        change_of(t for t in own if t.part == "attention"),
        change_of(t for t in own if t.part == "ffn"),
    )


def _own_units(
    index: int, kind: ModuleKind, shapes: tuple[ModelShape, ModelShape], matching: Matching | None
) -> tuple[int, int]:
    modules = shapes[0].blocks[index].module(kind), shapes[1].blocks[index].module(kind)
    if matching is None:
        return modules[0].units, modules[1].units
    first, second = matching.sides(modules, index, kind)
    return len(first.units), len(second.units)
