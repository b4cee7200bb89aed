"""From what is asked to be off to masks: numbers checked, shares of an FFN made channels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pruning.ablation.masks import BlockMask, Masks
from pruning.artifacts.ablation import Ablation
from pruning.artifacts.measurement import Measurement
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.shapes import ModelShape
from pruning.criteria import unit_scores
from pruning.planning.channels import plan_channels
from pruning.utils.errors import UsageError


def check_ablation(off: Ablation, shape: ModelShape) -> None:
    """Raise UsageError, one sentence, for a block or head that the model does not have and for
    shares outside (0, 1]."""
    for block in (*(b for b, _ in off.heads), *(b for b, _ in off.ffn), *off.blocks):
        check_block(block, shape)
    for block, head in off.heads:
        heads = shape.blocks[block].attention.units
        if not 0 <= head < heads:
            raise UsageError(
                f"Block {block} has no head {head}; its heads are numbered 0 to {heads - 1}."
            )
    for block, share in off.ffn:
        if not 0.0 < share <= 1.0:
            raise UsageError(
                f"The share {share:g} of FFN {block} cannot be switched off; give one above 0 and "
                "at most 1."
            )


def check_block(block: int, shape: ModelShape) -> None:
    """Raise UsageError for a block that the model does not have."""
    if not 0 <= block < len(shape.blocks):
        raise UsageError(
            f"The model has no block {block}; its blocks are numbered 0 to {len(shape.blocks) - 1}."
        )


def needs_scores(off: Ablation) -> bool:
    """Whether :func:`masks_for` needs a measurement: some channels of an FFN go, not all."""
    return any(share < 1.0 for _, share in off.ffn)


def masks_for(
    off: Ablation, shape: ModelShape, measurement: Measurement | None, recipe: Recipe
) -> Masks:
    """The masks of ``off`` on a model of this ``shape``. Channels are those that ``recipe`` would
    take at that share, by its criterion for the FFN, from ``measurement`` (see
    :func:`needs_scores`). Raises UsageError and NeedsMeasurement."""
    check_ablation(off, shape)
    masks = {block: BlockMask(whole=True) for block in off.blocks}
    for block in _others(masks, (block for block, _ in off.heads)):
        heads = sorted({head for at, head in off.heads if at == block})
        masks[block] = replace(masks.get(block, BlockMask()), heads=tuple(heads))
    for block, share in off.ffn:
        if not masks.get(block, BlockMask()).whole:
            channels = _channels(block, share, shape, measurement, recipe)
            masks[block] = replace(masks.get(block, BlockMask()), channels=channels)
    return masks


def _others(masks: Masks, blocks: Iterable[int]) -> list[int]:
    """``blocks``, each once, but those that are off as a whole."""
    return sorted(set(blocks) - {block for block, mask in masks.items() if mask.whole})


def _channels(
    block: int, share: float, shape: ModelShape, measurement: Measurement | None, recipe: Recipe
) -> tuple[int, ...]:
    ffn, name = shape.blocks[block].ffn, recipe.ffn.score
    if share == 1.0:
        return tuple(range(ffn.units))
    if measurement is None:
        raise UsageError("A share of an FFN goes by score; measure the model first, or take all.")
    check_measured(measurement, shape)
    statistics = measurement.blocks[block].ffn.statistics
    scores = unit_scores(name, statistics, ffn, seed=recipe.seed, block=block)
    channels = plan_channels(block, ffn, scores, name, share).removed
    if not channels:
        raise UsageError(ffn.fixed or f"{share:.3g} of FFN {block} is no whole channel; take more.")
    return channels


def check_measured(measurement: Measurement, shape: ModelShape) -> None:
    """Raise UsageError where ``measurement`` is not of a model of this ``shape``."""
    if replace(measurement.shape, dtype=shape.dtype) != shape:
        raise UsageError("The measurement is of another model; measure this one.")
