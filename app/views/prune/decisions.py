"""The decision feed: what a run decided, one sentence and one frame per module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pruning.artifacts.events import ModuleEvent
from pruning.artifacts.plan import BY_HAND, ELIMINATION, SIMILARITY, ModulePlan
from pruning.artifacts.shapes import ModelShape, ModuleKind, footprint, full_widths
from pruning.criteria import CRITERIA

NAMED = 6
"""Heads that a sentence names; more are counted."""
CLAUSES = 2
"""Partners that a sentence names."""
NOUNS = {"attention": "attention", "ffn": "FFN"}


@dataclass(frozen=True)
class Frame:
    """The picture after ``step`` of the decisions. ``attention`` and ``ffn`` are what is decided
    in ``block`` by then; None: nothing yet (or the module was left alone)."""

    step: int
    block: int
    attention: ModulePlan | None
    ffn: ModulePlan | None
    newest: ModuleEvent | None
    events: tuple[ModuleEvent, ...]
    heads_gone: int
    channels_gone: int

    def module(self, kind: ModuleKind) -> ModulePlan | None:
        return self.attention if kind == "attention" else self.ffn


def frame(events: Sequence[ModuleEvent], step: int) -> Frame:
    """The frame after the first ``step`` of ``events`` (clamped); step 0 is before the first."""
    step = min(max(step, 0), len(events))
    seen = tuple(events[:step])
    newest = seen[-1] if seen else None
    block = newest.block if newest else events[0].block if events else 0
    here = {event.kind: event.decision for event in seen if event.block == block}
    gone = {kind: sum(len(e.removed) for e in seen if e.kind == kind) for kind in NOUNS}
    return Frame(
        step,
        block,
        here.get("attention"),
        here.get("ffn"),
        newest,
        seen,
        gone["attention"],
        gone["ffn"],
    )


def sentence(event: ModuleEvent) -> str:
    """One decision, such as ``Block 12 attention: heads 3, 7 go, like head 1, JS 0.14; error
    0.08 → 0.02``."""
    return f"Block {event.block} {NOUNS[event.kind]}: {_loss(event.decision)}; {_repair(event)}"


def _loss(module: ModulePlan) -> str:
    if not module.removed:
        return "nothing goes here, but it makes up for what went before"
    if module.kind == "ffn":
        return f"{len(module.removed):,} of {module.units:,} channels go{_by_score(module)}"
    if module.grouped and module.groups:
        return _group_loss(module)
    return _head_loss(module)


def _head_loss(module: ModulePlan) -> str:
    alike: dict[int, list[int]] = {}
    for row, criterion in enumerate(module.criteria):
        if criterion == SIMILARITY:
            alike.setdefault(module.partners[row], []).append(row)
    clauses = [
        f"{_go('head', [module.removed[r] for r in rows])}, like head {partner}, "
        f"{_divergence([module.values[r] for r in rows])}"
        for partner, rows in alike.items()
    ]
    if len(clauses) > CLAUSES:
        rows = sorted(row for members in alike.values() for row in members)
        heads = [module.removed[row] for row in rows]
        values = [module.values[row] for row in rows]
        clauses = [f"{_go('head', heads, module.units)}, each like another, {_divergence(values)}"]
    others = [u for u, c in zip(module.removed, module.criteria, strict=True) if c != SIMILARITY]
    if others:
        clauses.append(f"{_go('head', others, module.units)}{_by_score(module)}")
    return "; ".join(clauses)


def _group_loss(module: ModulePlan) -> str:
    groups = list(module.removed_groups)
    per_group = module.units // module.groups
    rows = {module.removed[row] // per_group: row for row in range(len(module.removed))}
    text = f"{_go('key/value group', groups)} ({len(module.removed)} heads)"
    alike = [g for g in groups if module.criteria[rows[g]] == SIMILARITY]
    if alike and len(alike) == len(groups):
        partners = sorted({module.partners[rows[g]] for g in alike})
        values = [module.values[rows[g]] for g in alike]
        return f"{text}, like group {_list(partners)}, {_divergence(values)}"
    return f"{text}{_by_score(module)}"


def _go(noun: str, numbers: Sequence[int], of: int = 0) -> str:
    """``heads 3, 7 go``; many are counted."""
    if len(numbers) == 1:
        return f"{noun} {numbers[0]} goes"
    if len(numbers) > NAMED and of:
        return f"{len(numbers)} of {of} {noun}s go"
    return f"{noun}s {_list(numbers)} go"


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _divergence(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return f"JS {low}" if low == high else f"JS {low} to {high}"


def _by_score(module: ModulePlan) -> str:
    """``, the weakest by Second moment``; nothing where no one score chose."""
    names = set(module.criteria) - {SIMILARITY}
    if names == {BY_HAND}:
        return ", marked by hand"
    if names == {ELIMINATION}:
        return ", which the others can make up for best"
    titles = sorted(CRITERIA.entry(name).title for name in names if name in CRITERIA)
    return f", weakest by {' and '.join(titles)}" if titles else ""


def _repair(event: ModuleEvent) -> str:
    before, after = number(event.error_before), number(event.error_after)
    if event.error_after == event.error_before:
        return f"error {after}"
    return f"error {before} → {after}"


def number(error: float) -> str:
    """A relative error with as many digits as still say something: ``0.08``, ``0.0012``."""
    if error >= 0.0995:
        return f"{error:.2f}"
    return f"{error:.2g}" if error >= 1e-4 or error == 0 else "under 0.0001"


def units_of(
    events: Sequence[ModuleEvent], block: int, kind: ModuleKind, shape: ModelShape | None
) -> int:
    """Heads or channels that a module had: from the shape, else from the events; 0 = unknown."""
    if shape is not None and block < len(shape.blocks):
        return shape.blocks[block].module(kind).units
    own = [event for event in events if event.kind == kind]
    exact = [event.units for event in own if event.block == block]
    return (exact or [event.units for event in own] or [0])[-1]


def kept_so_far(events: Sequence[ModuleEvent], shape: ModelShape) -> float:
    """Share of the block parameters that stays after ``events``, in (0, 1]."""
    whole = full_widths(shape)
    widths = list(whole)
    for event in events:
        module = event.decision
        kept = module.units - len(event.removed)
        changed = (
            {"channels": kept}
            if event.kind == "ffn"
            else {"heads": kept, "kv_heads": len(module.kept_groups)}
        )
        widths[event.block] = replace(widths[event.block], **changed)
    before, after = (footprint(shape, w, context=1) for w in (whole, widths))
    return after.block_parameters / before.block_parameters
