"""Recipes in one line, how two differ, and what a setting means for this model."""

from __future__ import annotations

from typing import Any

from pruning.artifacts.recipe import Recipe
from pruning.artifacts.shapes import ModelShape
from pruning.registries import HEAD_POLICIES


def summary(recipe: Recipe) -> str:
    """What tells one recipe from another."""
    tau, budget = recipe.heads.threshold, recipe.budget
    parts = [recipe.model.source]
    parts += [f"τ {tau:.3f}"] if tau is not None else []
    if budget.kept is not None:
        parts.append(f"keep {budget.kept:.0%} of {budget.of}")
    elif budget.megabytes is not None:
        parts.append(f"{budget.megabytes:g} MB")
    else:
        parts += [f"heads {recipe.heads.ratio:.0%}"] if recipe.heads.ratio else []
        parts += [f"FFN {recipe.ffn.ratio:.0%}"] if recipe.ffn.ratio else []
    marked = sum(len(marks.keep) + len(marks.drop) for marks in recipe.marks.values())
    parts += [f"{marked} {'head' if marked == 1 else 'heads'} marked"] if marked else []
    parts += [recipe.allocation.replace("_", " ")] if recipe.allocation != "uniform" else []
    parts += [f"recovery {recipe.recovery.method}"]
    parts += [f"tuned: {recipe.tune.method}"] if recipe.tune.method != "none" else []
    return " · ".join(parts)


def scope(recipe: Recipe) -> str:
    """Which blocks a run may cut and what it measures on: ``blocks 3 to 27 · sample, 32 × 128
    tokens · seed 0``."""
    first, end = recipe.blocks.start, recipe.blocks.end
    blocks = f"blocks {first} to {end - 1 if end else 'the last'}"
    text = recipe.calibration
    parts = ["all blocks" if (first, end) == (0, None) else blocks]
    parts += [f"{text.source}, {text.samples} × {text.seq_len} tokens", f"seed {recipe.seed}"]
    return " · ".join(parts)


def marks_in_words(recipe: Recipe) -> str:
    """``block 3 keeps 1, drops 4 and 7``; empty without marks."""
    parts = []
    for block, marks in recipe.marks.items():
        sides = [
            f"{verb} {', '.join(map(str, heads))}"
            for verb, heads in (("keeps", marks.keep), ("drops", marks.drop))
            if heads
        ]
        parts.append(f"block {block} {' and '.join(sides)}")
    return "; ".join(parts)


def _ratios_in_words(recipe: Recipe) -> str:
    """``block 3 heads 20%, FFN 30%``; empty without ratios of single blocks."""
    return "; ".join(
        f"block {block} heads {rule.heads:.0%}, FFN {rule.ffn:.0%}"
        for block, rule in sorted(recipe.by_hand.items())
    )


def differences(first: Recipe, second: Recipe) -> list[tuple[str, str, str]]:
    """``(setting, value in first, value in second)`` of what two recipes say differently."""
    changed = []
    # these have an entry per block, and not for the same blocks
    apart = {"by_hand", "marks"}
    one, other = first.model_dump(exclude=apart), second.model_dump(exclude=apart)
    for section, value in one.items():
        if isinstance(value, dict):
            title = "FFN" if section == "ffn" else section
            changed += [
                (f"{title}, {field}".replace("_", " "), _said(entry), _said(other[section][field]))
                for field, entry in value.items()
                if entry != other[section][field]
            ]
        elif value != other[section]:
            changed.append((section, _said(value), _said(other[section])))
    for title, words in (("ratios", _ratios_in_words), ("heads", marks_in_words)):
        if words(first) != words(second):
            changed.append((f"{title} by hand", _said(words(first)), _said(words(second))))
    return changed


def _said(value: Any) -> str:
    """A value of a recipe as people say it."""
    if value in (None, ""):
        return "–"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def group_note(shape: ModelShape, policy: str) -> str:
    """What shared key/value heads mean for a number of heads; empty where it means nothing."""
    shared = [b.attention for b in shape.blocks if b.attention.units_per_group > 1]
    if not shared or shared[0].groups < 2:
        return ""
    return HEAD_POLICIES[policy].note(shared[0])
