"""Which units of one model are which of another: found by the plans that made them, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pruning.artifacts.plan import ModulePlan, Plan
from pruning.artifacts.shapes import KINDS, ModelShape, ModuleKind, ModuleShape

UNMATCHED = (
    "No plan says which heads and channels of one model are which of the other, so only tensors of "
    "equal shape were compared, element by element."
)
AS_THEY_ARE = "Both have the same widths and were compared element by element."


@dataclass(frozen=True)
class Side:
    """The units of one module by their numbers in the model that both come from: ``units`` and
    ``groups`` say where each is now; in that model ``per_group`` query heads shared a key/value
    head. ``groups`` is empty for an FFN, and for an attention module whose query heads own a
    key/value head each (``ungrouped``), found where the unit is."""

    units: Mapping[int, int]
    groups: Mapping[int, int]
    per_group: int
    ungrouped: bool = False

    def own(self) -> tuple[Sequence[int], Sequence[int]]:
        """Places of units and of groups that are there, padding left out."""
        units = list(self.units.values())
        return units, units if self.ungrouped else list(self.groups.values())


@dataclass(frozen=True)
class Places:
    """Where the units and groups that both models have are in one of them, in the same order."""

    units: Sequence[int]
    groups: Sequence[int]


def common(first: Side, second: Side) -> tuple[Places, Places]:
    """What both have. Where one side is ungrouped, key/value heads are compared once for each query
    head."""
    units = [unit for unit in first.units if unit in second.units]
    by_unit = first.ungrouped or second.ungrouped
    groups = [group for group in first.groups if group in second.groups]

    def places(side: Side) -> Places:
        here = [side.units[unit] for unit in units]
        if not by_unit:
            return Places(here, [side.groups[group] for group in groups])
        shared = [side.groups[unit // side.per_group] for unit in units if not side.ungrouped]
        return Places(here, shared or here)

    return places(first), places(second)


@dataclass(frozen=True)
class Matching:
    """How two models are matched: the ``plans`` that lead from the model that both come from to
    each of them (None: it is that model, or as wide), and ``words`` for people."""

    plans: tuple[Plan | None, Plan | None]
    words: str

    def sides(
        self, shapes: tuple[ModuleShape, ModuleShape], block: int, kind: ModuleKind
    ) -> tuple[Side, Side]:
        """The two sides of one module; ``shapes``: what it is in each model."""
        first, second = (
            side_of(shape, None if plan is None else plan.blocks[block].module(kind))
            for shape, plan in zip(shapes, self.plans, strict=True)
        )
        return first, second


def side_of(shape: ModuleShape, decision: ModulePlan | None) -> Side:
    """The units of a module of this ``shape`` that ``decision`` made."""
    if decision is None:
        return Side(
            _numbers(range(shape.units)), _numbers(range(shape.groups)), shape.units_per_group
        )
    kept, groups = decision.kept, decision.kept_groups
    per_group = decision.units // decision.groups if decision.groups else 1
    if (shape.units, shape.groups) == (decision.units, decision.groups):  # padded, or nothing went
        return Side({u: u for u in kept}, {g: g for g in groups}, per_group)
    if decision.ungrouped:
        return Side(_numbers(kept), {}, per_group, ungrouped=True)
    return Side(_numbers(kept), _numbers(groups), per_group)


def _numbers(units: Sequence[int]) -> dict[int, int]:
    return {unit: place for place, unit in enumerate(units)}


def match(
    shapes: tuple[ModelShape, ModelShape],
    plans: tuple[Plan | None, Plan | None],
    names: tuple[str, str],
) -> Matching | None:
    """How two models of these ``shapes`` are matched, by the ``plans`` that they carry; None where
    no plan says and their widths differ."""
    first, second = shapes
    one, other = plans
    if one and other and _from(one) == _from(other) and _made(one, first) and _made(other, second):
        return Matching((one, other), "By the plans of both, which are for the same model.")
    if other and _from(other) == _sizes(first) and _made(other, second):
        return Matching((None, other), f"By the plan that made {names[1]}.")
    if one and _from(one) == _sizes(second) and _made(one, first):
        return Matching((one, None), f"By the plan that made {names[0]}.")
    if _sizes(first) == _sizes(second):
        return Matching((None, None), AS_THEY_ARE)
    return None


Sizes = list[tuple[int, int, int]]


def _sizes(shape: ModelShape) -> Sizes:
    modules = (block.module(kind) for block in shape.blocks for kind in KINDS)
    return [(module.units, module.groups, module.experts) for module in modules]


def _from(plan: Plan) -> Sizes:
    """The sizes of the model that ``plan`` is for."""
    return _sizes(plan.shape)


def _made(plan: Plan, shape: ModelShape) -> bool:
    """Whether a model of this ``shape`` can be what ``plan`` made, padded or not."""
    if len(plan.blocks) != len(shape.blocks):
        return False
    for block, now in zip(plan.blocks, shape.blocks, strict=True):
        for kind in KINDS:
            decision, module = block.module(kind), now.module(kind)
            whole = (decision.units, decision.groups)
            cut = (len(decision.kept), len(decision.kept_groups))
            if (module.units, module.groups) not in (whole, cut):
                return False
    return True
