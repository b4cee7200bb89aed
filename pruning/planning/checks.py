"""What a recipe comes to on a model of given sizes, before anything is measured.

Everything that a plan would refuse whatever the measurement says is refused here; sizes are exact
where no score decides them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import floor

import numpy as np

from pruning.artifacts.plan import ModulePlan
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.rules import LN2, Marks
from pruning.artifacts.shapes import ModelShape, ModuleShape, Widths, footprint, full_widths
from pruning.planning.allocation import ALLOCATIONS, BlockSparsity
from pruning.planning.allocation.budget import added_biases, module_parameters, within_budget
from pruning.planning.channels import plan_channels
from pruning.planning.head_policies.base import HEAD_POLICIES, HeadRequest
from pruning.planning.heads import select_heads
from pruning.planning.marks import HeadMarks, check_marks
from pruning.planning.selection import dense_parameters, keep_all
from pruning.utils.errors import UsageError

BY_RATIO = ("uniform", "by_hand")
"""Allocations that give each block the ratios that the recipe says."""


@dataclass(frozen=True)
class Outlook:
    """Sizes that a recipe leads to. ``most``: parameters that the whole model has at most;
    ``widths`` of every block where no score decides them, else None: then ``most`` is exact;
    ``cuts``: something is sure to go."""

    blocks: range
    most: int
    widths: tuple[Widths, ...] | None
    cuts: bool

    @classmethod
    def untouched(cls, shape: ModelShape) -> Outlook:
        """Of a model that nothing is taken from."""
        parameters = footprint(shape, full_widths(shape), 0).parameters
        blocks = range(len(shape.blocks))
        return cls(blocks, parameters, full_widths(shape), False)


def block_range(recipe: Recipe, count: int) -> range:
    """The blocks that may be cut; raises UsageError when the range leaves the model."""
    end = count if recipe.blocks.end is None else recipe.blocks.end
    if end > count or recipe.blocks.start >= end:
        raise UsageError(
            f"The block range [{recipe.blocks.start}, {end}) does not fit a model of {count} "
            f"blocks; choose 0 <= start < end <= {count}."
        )
    return range(recipe.blocks.start, end)


def cuttable(shape: ModelShape, recipe: Recipe) -> ModelShape:
    """``shape``, its heads fixed where the recipe's budget spares them."""
    if not (recipe.budget.given and recipe.budget.spare_heads):
        return shape
    reason = "the recipe's budget spares the heads."
    blocks = tuple(
        replace(block, attention=replace(block.attention, fixed=reason)) for block in shape.blocks
    )
    return replace(shape, blocks=blocks)


def check_recipe(recipe: Recipe, shape: ModelShape) -> Outlook:
    """Raise UsageError, one sentence, when no measurement of a model of this ``shape`` could be
    planned by ``recipe``: the block range, marks, a budget too small, settings of the
    allocation."""
    whole, shape = shape, cuttable(shape, recipe)
    blocks = block_range(recipe, len(shape.blocks))
    check_marks(recipe, shape, blocks)
    ALLOCATIONS[recipe.allocation].check(recipe, blocks)
    for index in recipe.marks:
        _check_policy(recipe, shape, index)
    if not recipe.budget.given:
        return _by_ratios(recipe, whole, shape, blocks)
    before = footprint(whole, full_widths(whole), 0).parameters
    inside = module_parameters(shape, blocks)
    kept = within_budget(shape, recipe, blocks)
    cuts = kept < inside or any(marks.drop for marks in recipe.marks.values())
    widths = None if cuts or recipe.heads.threshold else full_widths(whole)
    most = before - inside + kept + (added_biases(shape, recipe, blocks) if cuts else 0)
    return Outlook(blocks, most, widths, cuts)


def _by_ratios(recipe: Recipe, whole: ModelShape, shape: ModelShape, blocks: range) -> Outlook:
    sparsity = {index: _sparsity(recipe, index) for index in blocks}
    widths = tuple(
        _widths(recipe, shape, index, sparsity[index]) if index in sparsity else full
        for index, full in enumerate(full_widths(whole))
    )
    most = footprint(whole, widths, 0).parameters
    weighs_others = HEAD_POLICIES[recipe.heads.policy].weighs_others
    if weighs_others:
        # it saves at least its share, and may save more
        most += sum(_slack(shape.blocks[i].attention, widths[i], s) for i, s in sparsity.items())
    before = footprint(whole, full_widths(whole), 0).parameters
    by_scores = recipe.allocation not in BY_RATIO and most < before
    # a threshold takes more heads, and such a policy other ones
    open_heads = any(not shape.blocks[i].attention.fixed for i in blocks) and (
        recipe.heads.threshold is not None
        or (weighs_others and any(share.heads > 0 for share in sparsity.values()))
    )
    exact = not by_scores and not open_heads
    return Outlook(blocks, most, widths if exact else None, widths != full_widths(whole))


def _sparsity(recipe: Recipe, index: int) -> BlockSparsity:
    rule = recipe.by_hand.get(index) if recipe.allocation == "by_hand" else None
    if rule is not None:
        return BlockSparsity(rule.heads, rule.ffn)
    return BlockSparsity(recipe.heads.ratio, recipe.ffn.ratio)


def _slack(shape: ModuleShape, widths: Widths, sparsity: BlockSparsity) -> int:
    """Parameters of an attention module by which ``sparsity`` would allow more than ``widths``."""
    if shape.fixed:
        return 0
    allowed = floor((1.0 - sparsity.heads) * dense_parameters(shape))
    return max(0, allowed - shape.parameters(widths.heads, widths.kv_heads))


def _widths(recipe: Recipe, shape: ModelShape, index: int, sparsity: BlockSparsity) -> Widths:
    """What block ``index`` keeps by ratios and marks; which units, no one can say yet."""
    block = shape.blocks[index]
    heads = _heads(recipe, block.attention, index, sparsity.heads)
    channels = plan_channels(
        index,
        block.ffn,
        np.zeros(block.ffn.units),
        recipe.ffn.score,
        sparsity.ffn,
        recipe.ffn.multiple,
    )
    return Widths(len(heads.kept), len(heads.kept_groups), len(channels.kept))


def _heads(recipe: Recipe, shape: ModuleShape, index: int, sparsity: float) -> ModulePlan:
    """The heads that block ``index`` loses, were all of them different and worth the same. Raises
    UsageError when the policy cannot honour the marks."""
    if shape.fixed:
        return keep_all(index, shape)
    marked = recipe.marks.get(index, Marks())
    apart = np.full((shape.units, shape.units), LN2)
    rule = recipe.heads.model_copy(update={"threshold": None})
    marks = HeadMarks(marked.keep, marked.drop)
    scores = np.zeros(shape.units)
    return select_heads(HeadRequest(index, shape, apart, scores, rule, sparsity, marks))


def _check_policy(recipe: Recipe, shape: ModelShape, index: int) -> None:
    """Raise UsageError when the marks of block ``index`` cannot be honoured however many heads
    go."""
    attention = shape.blocks[index].attention
    _heads(recipe, attention, index, 1.0 - 1.0 / attention.units)
