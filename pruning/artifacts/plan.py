"""The plan: what goes and why. Plain, editable, serialisable; it never touches the model."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property

from pruning.artifacts.shapes import (
    Footprint,
    ModelShape,
    ModuleKind,
    Widths,
    footprint,
    full_widths,
)
from pruning.artifacts.stored import Stored
from pruning.utils.errors import UsageError

PLAN_VERSION = 1
SIMILARITY = "similarity"
BY_HAND = "by hand"
ELIMINATION = "elimination"


@dataclass(frozen=True)
class ModulePlan:
    """Units that one module loses; the columns of one table, ordered by unit.

    ``removed``: heads or channels. ``criteria``: why each goes: ``similarity``, a score's name,
    ``elimination`` or ``by hand``. ``values``: divergence in nats, the score, or the turn.
    ``partners``: the like unit, or -1. ``ranks``: place by score, 1 = weakest, or 0.
    ``grouped``: partners and ranks count key/value groups, which go whole.
    ``removed_groups``: key/value heads that go. ``ungrouped``: every query head gets
    its own copy of its key/value head first (an exact rewrite), so any heads may go. ``held``:
    units that a person marked to keep. ``experts``: the units are the channels of one expert after
    the other; ranks count within an expert, and each loses as many.
    """

    block: int
    kind: ModuleKind
    units: int
    groups: int
    grouped: bool
    removed: tuple[int, ...]
    criteria: tuple[str, ...]
    values: tuple[float, ...]
    partners: tuple[int, ...]
    ranks: tuple[int, ...]
    removed_groups: tuple[int, ...] = ()
    ungrouped: bool = False
    held: tuple[int, ...] = ()
    experts: int = 1

    @cached_property
    def kept(self) -> tuple[int, ...]:
        """Units that stay, in order."""
        gone = set(self.removed)
        return tuple(unit for unit in range(self.units) if unit not in gone)

    @cached_property
    def kept_groups(self) -> tuple[int, ...]:
        """Key/value heads that stay, in order (empty for an FFN); repeated per query head when
        ungrouped."""
        if self.ungrouped:
            return tuple(unit * self.groups // self.units for unit in self.kept)
        gone = set(self.removed_groups)
        return tuple(group for group in range(self.groups) if group not in gone)

    def reason(self, unit: int) -> str | None:
        """Why ``unit`` goes, as a phrase for people; None when it stays."""
        if unit not in self.removed:
            return None
        row = self.removed.index(unit)
        return self._phrase(row)

    def reasons(self) -> dict[int, str]:
        """``{unit: phrase}`` of every removed unit."""
        return {unit: self._phrase(row) for row, unit in enumerate(self.removed)}

    def _phrase(self, row: int) -> str:
        criterion = self.criteria[row]
        per_group = self.units // self.groups if self.groups else 1
        if criterion == BY_HAND:
            # a mark on one head takes the whole group along
            whole = f"key/value group {self.removed[row] // per_group} " if self.grouped else ""
            return f"{whole}marked by hand"
        if self.grouped and self.groups:
            place = f"key/value group {self.removed[row] // per_group} "
            noun, of = "group", self.groups
        else:
            place = ""
            noun = "head" if self.kind == "attention" else "channel"
            of = self.units // self.experts
            # under grouped queries each group gives up the same number, so ranks are within it
            even = self.kind == "attention" and per_group > 1 and not self.ungrouped
            of = per_group if even else of
        if criterion == SIMILARITY:
            return f"{place}like {noun} {self.partners[row]}, JS {self.values[row]:.3f} nats"
        name = criterion.replace("_", " ")
        scope = f" in expert {self.removed[row] // of}" if self.experts > 1 else ""
        if of == per_group and per_group > 1 and not place:
            scope = " in its group"
            if self._leading_group is not None:
                scope += f", to give up as many as group {self._leading_group}, marked by hand"
        return f"{place}{name} rank {self.ranks[row]} of {of}{scope}"

    @cached_property
    def _leading_group(self) -> int | None:
        """The key/value group whose marks alone set how many heads every group gives up."""
        per_group = self.units // self.groups
        why: dict[int, set[str]] = {}
        for unit, criterion in zip(self.removed, self.criteria, strict=True):
            if unit // per_group not in self.removed_groups:
                why.setdefault(unit // per_group, set()).add(criterion)
        return next((group for group, criteria in why.items() if criteria == {BY_HAND}), None)


@dataclass(frozen=True)
class BlockPlan:
    """The two modules of one block."""

    attention: ModulePlan
    ffn: ModulePlan

    def module(self, kind: ModuleKind) -> ModulePlan:
        return self.attention if kind == "attention" else self.ffn


@dataclass(frozen=True)
class Plan:
    """What goes in every block. ``context`` is the length that FLOPs are counted at; ``remarks``:
    what one would not expect of it, as sentences."""

    shape: ModelShape
    blocks: tuple[BlockPlan, ...]
    context: int
    remarks: tuple[str, ...] = ()

    @cached_property
    def widths(self) -> tuple[Widths, ...]:
        """What each block keeps."""
        return tuple(
            Widths(
                block.attention.units - len(block.attention.removed),
                len(block.attention.kept_groups),
                block.ffn.units - len(block.ffn.removed),
            )
            for block in self.blocks
        )

    @cached_property
    def before(self) -> Footprint:
        return footprint(self.shape, full_widths(self.shape), self.context)

    @cached_property
    def after(self) -> Footprint:
        return footprint(self.shape, self.widths, self.context)

    @property
    def kept_block_parameters(self) -> float:
        """Share of the parameters of all transformer blocks that stays, in (0, 1]."""
        return self.after.block_parameters / self.before.block_parameters

    @property
    def is_empty(self) -> bool:
        """True when nothing goes."""
        return all(not b.attention.removed and not b.ffn.removed for b in self.blocks)

    def with_module(self, module: ModulePlan) -> Plan:
        """A plan with one module's decision replaced."""
        blocks = list(self.blocks)
        blocks[module.block] = replace(blocks[module.block], **{module.kind: module})
        return replace(self, blocks=tuple(blocks))

    def to_json(self) -> str:
        """JSON text that :meth:`from_json` reads back to an equal plan."""
        return json.dumps(_STORED.plain(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, origin: str = "The plan") -> Plan:
        """Read :meth:`to_json`; raises UsageError in one line when it is not a valid plan."""
        plan = _STORED.read(text, origin)
        check(plan)
        return plan


_STORED = Stored(
    Plan,
    wrong="is not valid",
    advice="make it again",
    refusal=UsageError,
    header={"version": PLAN_VERSION},
)


def check(plan: Plan) -> None:
    """Raise UsageError when the plan does not fit its shape or no kernel could run the result."""
    if len(plan.blocks) != len(plan.shape.blocks):
        raise UsageError("The plan has another number of blocks than the model.")
    for index, (block, shape) in enumerate(zip(plan.blocks, plan.shape.blocks, strict=True)):
        for kind in ("attention", "ffn"):
            module, size = block.module(kind), shape.module(kind)
            where = f"The plan's block {index} {kind}"
            if (module.block, module.kind) != (index, kind):
                raise UsageError(f"{where} is filed under another place.")
            sizes = (module.units, module.groups, module.experts)
            if sizes != (size.units, size.groups, size.experts):
                raise UsageError(f"{where} does not fit the model's {size.units} units.")
            named = (*module.removed, *module.removed_groups)
            if not all(type(unit) is int for unit in named):
                raise UsageError(f"{where} names units that are not whole numbers.")
            if list(module.removed) != sorted(set(module.removed)) or not all(
                0 <= unit < size.units for unit in module.removed
            ):
                raise UsageError(f"{where} names units that do not exist or names one twice.")
            if module.removed and size.fixed:
                raise UsageError(f"{where} cannot lose units: {size.fixed}")
            if set(module.held) & set(module.removed):
                raise UsageError(f"{where} would lose units that are marked to keep.")
            if len(module.removed) >= size.units:
                raise UsageError(f"{where} would lose every unit; keep at least one.")
            columns = (module.criteria, module.values, module.partners, module.ranks)
            if any(len(column) != len(module.removed) for column in columns):
                raise UsageError(f"{where} does not give one reason per removed unit.")
            if kind == "attention":
                _check_groups(module, where)
            else:
                _check_experts(module, size.step, where)


def _check_experts(module: ModulePlan, step: int, where: str) -> None:
    left = [0] * module.experts
    for channel in module.kept:
        left[channel * module.experts // module.units] += 1
    if len(set(left)) > 1:
        raise UsageError(f"{where} would leave its experts with different numbers of channels.")
    if left[0] % step:
        raise UsageError(
            f"{where} would leave {left[0]} channels to each expert; keep a multiple of {step}."
        )


def _check_groups(module: ModulePlan, where: str) -> None:
    per_group = module.units // module.groups
    left = [0] * module.groups
    for head in module.kept:
        left[head // per_group] += 1
    emptied = {group for group in range(module.groups) if left[group] == 0}
    kept = {left[group] for group in range(module.groups)} - {0}
    even = len(kept) == 1 or module.ungrouped
    if not even or sorted(emptied) != list(module.removed_groups):
        raise UsageError(
            f"{where} leaves {left} query heads per key/value group; every kept group must "
            "keep the same number, or go whole."
        )
