"""Plans that say which units go, without a criterion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pruning.artifacts.plan import BY_HAND, BlockPlan, ModulePlan, Plan
from pruning.artifacts.shapes import ModelShape, ModuleShape
from pruning.models.loading.loaded import LoadedModel


def module_by_hand(block: int, shape: ModuleShape, removed: Sequence[int]) -> ModulePlan:
    """A module plan that loses exactly ``removed``."""
    removed = tuple(sorted(removed))
    count = len(removed)
    per_group = shape.units_per_group
    gone = [
        group
        for group in range(shape.groups)
        if all(group * per_group + member in removed for member in range(per_group))
    ]
    return ModulePlan(
        block,
        shape.kind,
        shape.units,
        shape.groups,
        False,
        removed,
        (BY_HAND,) * count,
        (0.0,) * count,
        (-1,) * count,
        (0,) * count,
        tuple(gone),
        experts=shape.experts,
    )


def plan_by_hand(
    shape: ModelShape, heads: Mapping[int, Sequence[int]], channels: Mapping[int, Sequence[int]]
) -> Plan:
    """A plan that loses the given heads and channels of the given blocks."""
    blocks = tuple(
        BlockPlan(
            module_by_hand(index, block.attention, heads.get(index, ())),
            module_by_hand(index, block.ffn, channels.get(index, ())),
        )
        for index, block in enumerate(shape.blocks)
    )
    return Plan(shape, blocks, 16)


def uneven_plan(model: LoadedModel) -> Plan:
    """Other widths in every block: the first keeps all heads, the last loses the most."""
    shape = model.adapter.model_shape(model.model)
    attention = shape.blocks[0].attention
    per_group, groups = attention.units_per_group, attention.groups
    if attention.fixed:
        heads = {}
    elif per_group > 1 and groups > 1:
        heads = {1: [group * per_group + 1 for group in range(groups)], 2: range(per_group)}
    else:
        heads = {1: [1], 2: [0, 2]}
    channels = {0: range(3, 12), 1: [0], 2: range(0, 30, 2)}
    return plan_by_hand(
        shape, heads, {i: in_every_expert(shape.blocks[i].ffn, channels[i]) for i in channels}
    )


def in_every_expert(shape: ModuleShape, channels: Sequence[int]) -> list[int]:
    """Units of ``channels``, a little shifted from expert to expert, and as many as may go."""
    size = shape.units_per_expert
    count = min(-(-len(channels) // shape.step) * shape.step, size - shape.step)
    wanted = [*channels, *(c for c in range(size) if c not in channels)][:count]
    return [e * size + (c + e) % size for e in range(shape.experts) for c in wanted]
