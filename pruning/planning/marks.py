"""Heads marked by hand: which stay, which go, and whether a model can have them so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pruning.artifacts.recipe import Recipe
from pruning.artifacts.shapes import ModelShape, ModuleShape
from pruning.utils.errors import UsageError


@dataclass(frozen=True)
class HeadMarks:
    """Heads (or key/value groups) of one block that stay or go whatever their score."""

    keep: tuple[int, ...] = ()
    drop: tuple[int, ...] = ()


def check_marks(recipe: Recipe, shape: ModelShape, blocks: range) -> None:
    """Raise UsageError, one sentence, when the recipe's marks do not fit the model or name heads
    to drop where ``blocks`` may not be cut."""
    for index, marks in recipe.marks.items():
        if index >= len(shape.blocks):
            raise UsageError(
                f"The recipe marks heads of block {index}, but the model has {len(shape.blocks)} "
                "blocks; take these marks out."
            )
        attention = shape.blocks[index].attention
        for head in (*marks.keep, *marks.drop):
            if head >= attention.units:
                raise UsageError(
                    f"The recipe marks head {head} of block {index}, which has "
                    f"{attention.units} heads; take this mark out."
                )
        if marks.drop:
            _check_drops(index, len(marks.drop), attention, blocks)


def _check_drops(index: int, count: int, attention: ModuleShape, blocks: range) -> None:
    if attention.fixed:
        raise UsageError(
            f"Block {index} has heads marked to drop, but it cannot lose any: {attention.fixed}"
        )
    if index not in blocks:
        raise UsageError(
            f"Block {index} has heads marked to drop, but only blocks {blocks[0]} to {blocks[-1]} "
            "may be cut; widen the range or take the marks out."
        )
    if count == attention.units:
        raise UsageError(f"Every head of block {index} is marked to drop; keep at least one.")


def marked_groups(block: int, shape: ModuleShape, marks: HeadMarks) -> HeadMarks:
    """The marks as they bear on whole key/value groups: a marked head speaks for its group.
    Raises UsageError when a group holds both kinds, or when none would be left."""
    per_group = shape.units_per_group
    keep = {head // per_group for head in marks.keep}
    drop = {head // per_group for head in marks.drop}
    if keep & drop:
        raise UsageError(
            f"The marks of block {block} cannot be honoured: key/value group {min(keep & drop)} "
            "has heads marked keep and heads marked drop, but it goes or stays whole; change a "
            "mark, or the policy for grouped queries."
        )
    if len(drop) == shape.groups:
        raise UsageError(
            f"The marks of block {block} cannot be honoured: they drop every key/value group, and "
            "one must stay; change a mark, or the policy for grouped queries."
        )
    return HeadMarks(tuple(sorted(keep)), tuple(sorted(drop)))


def even_limits(
    block: int, shape: ModuleShape, marks: HeadMarks
) -> tuple[tuple[int, ...], int, int]:
    """What ``marks`` leave open when every key/value group gives up the same number of heads.

    Returns the groups of which every head is marked to drop (they go whole), and the least and
    the most heads that each other group can give up. Raises UsageError when there is no such
    number.
    """
    per_group = shape.units_per_group
    drops = np.bincount([head // per_group for head in marks.drop], minlength=shape.groups)
    keeps = np.bincount([head // per_group for head in marks.keep], minlength=shape.groups)
    left = np.nonzero(drops < per_group)[0]
    first, last = left[drops[left].argmax()], left[keeps[left].argmax()]
    least, most = int(drops[first]), per_group - max(int(keeps[last]), 1)
    if least > most:
        raise UsageError(
            f"The marks of block {block} cannot be honoured: key/value group {first} would give up "
            f"{least} heads and group {last} at most {most}, but every group must give up the "
            "same number; change a mark, or the policy for grouped queries."
        )
    return tuple(np.nonzero(drops == per_group)[0].tolist()), least, most
