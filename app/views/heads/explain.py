"""Numbers in words: why a head stays or goes, runs of blocks."""

from __future__ import annotations

import numpy as np

from pruning.artifacts.plan import SIMILARITY, ModulePlan
from pruning.artifacts.recipe import HeadRule
from pruning.artifacts.shapes import ModuleShape
from pruning.criteria import CRITERIA
from pruning.planning.analysis import nearest

NEIGHBOURS = 3


def explain_head(
    head: int,
    divergence: np.ndarray,
    importance_rank: int,
    importance: float,
    module: ModulePlan,
    shape: ModuleShape,
    rule: HeadRule,
) -> list[str]:
    """Sentences (Markdown) about ``head``: neighbours, importance, company, fate."""
    threshold = rule.threshold or 0.0
    lines = [
        _neighbours(divergence, head, threshold),
        (
            f"**Importance** {importance:.3g} by *{CRITERIA.entry(rule.score).title}*: "
            f"rank {importance_rank} of {shape.units} in its block (1 = weakest)."
        ),
    ]
    if shape.units_per_group > 1:
        lines.append(_company(head, shape))
    reason = module.reason(head)
    if head in module.held:
        lines.append("**It would stay:** marked keep by hand.")
    elif reason:
        lines.append(
            f"**✕ It would go:** {reason}.{surviving_neighbours(head, divergence, module, rule)}"
        )
    else:
        lines.append(f"**It would stay:** {_why_kept(head, divergence, module, shape, rule)}")
    return lines


def _neighbours(divergence: np.ndarray, head: int, threshold: float) -> str:
    near = nearest(divergence, head)
    if not near:
        return "It is the only head of its block."
    parts = [
        f"head {other} ({value:.3f}{', below τ' if value < threshold else ''})"
        for other, value in near[:NEIGHBOURS]
    ]
    below = sum(value < threshold for _, value in near)
    return (
        f"**Nearest heads**, JS divergence in nats: {', '.join(parts)}. "
        f"{below or 'None'} of {len(near)} {'is' if below == 1 else 'are'} below τ."
    )


def _company(head: int, shape: ModuleShape) -> str:
    per_group = shape.units_per_group
    group = head // per_group
    others = [u for u in range(group * per_group, (group + 1) * per_group) if u != head]
    names = ", ".join(str(other) for other in others)
    noun = "head" if len(others) == 1 else "heads"
    return f"**Key/value group** {group}, shared with {noun} {names}."


def surviving_neighbours(
    head: int, divergence: np.ndarray, module: ModulePlan, rule: HeadRule
) -> str:
    """When the head it is like goes too, say which alike heads are left."""
    row = module.removed.index(head)
    partner = module.partners[row]
    if module.grouped or module.criteria[row] != SIMILARITY or partner not in module.removed:
        return ""
    threshold = rule.threshold or 0.0
    left = [
        str(other)
        for other, value in nearest(divergence, head)
        if value < threshold and other not in module.removed
    ]
    if not left:
        return f" Head {partner} goes as well, and no other head within τ stays."
    noun = (
        f"head {left[0]}, also within τ, stays"
        if len(left) == 1
        else (f"heads {', '.join(left)}, also within τ, stay")
    )
    return f" Head {partner} goes as well; {noun}."


def _why_kept(
    head: int, divergence: np.ndarray, module: ModulePlan, shape: ModuleShape, rule: HeadRule
) -> str:
    threshold = rule.threshold or 0.0
    below = [other for other, value in nearest(divergence, head) if value < threshold]
    spoken_for = [
        unit
        for unit, partner, criterion in zip(
            module.removed, module.partners, module.criteria, strict=True
        )
        if partner == head and criterion == SIMILARITY and not module.grouped
    ]
    if spoken_for:
        one = len(spoken_for) == 1
        noun = "head" if one else "heads"
        chosen = (
            f"the {'stronger' if rule.drop == 'weaker' else 'later'} of {'the' if one else 'each'} "
        )
        chosen += "two" if one else "pair"
        return f"it stands for {noun} {', '.join(map(str, spoken_for))} as {chosen}."
    if shape.units_per_group > 1 and rule.policy == "kv_group":
        return "heads go by whole key/value groups, and its group is not one of them."
    if below and set(below) <= set(module.removed):
        return "the heads it resembles go already, so this one stays to speak for them."
    if below and shape.units_per_group > 1:
        return (
            "every key/value group gives up the same number of heads, and its group has given "
            "its share."
        )
    if below:
        return "the heads it resembles are each settled with another head."
    if rule.ratio > 0:
        return "no head is within τ of it, and weaker heads fill the ratio."
    return "no head is within τ of it."
