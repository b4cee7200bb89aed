"""Recipes in one line, and what a setting means for this model."""

from __future__ import annotations

from pruning.recipe import Recipe
from pruning.shape import ModelShape


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
    parts += [recipe.allocation.replace("_", " ")] if recipe.allocation != "uniform" else []
    return " · ".join([*parts, f"recovery {recipe.recovery.method}"])


def scope(recipe: Recipe) -> str:
    """Which blocks a run may cut and what it measures on: ``blocks 3 to 27 · sample, 32 × 128
    tokens · seed 0``."""
    first, end = recipe.blocks.start, recipe.blocks.end
    blocks = f"blocks {first} to {end - 1 if end else 'the last'}"
    text = recipe.calibration
    parts = ["all blocks" if (first, end) == (0, None) else blocks]
    parts += [f"{text.source}, {text.samples} × {text.seq_len} tokens", f"seed {recipe.seed}"]
    return " · ".join(parts)


def group_note(shape: ModelShape, policy: str) -> str:
    """What shared key/value heads mean for a number of heads; empty where it means nothing."""
    shared = [b.attention for b in shape.blocks if b.attention.units_per_group > 1]
    if not shared or shared[0].groups < 2:
        return ""
    groups, each = shared[0].groups, shared[0].units_per_group
    even = (
        f"the same number goes from each of the {groups} key/value groups, so a block's count is "
        f"rounded to a multiple of {groups}."
    )
    return {
        "query": f"T{even[1:]}",
        "kv_group": f"Whole key/value groups go, so a block's count is a multiple of {each}.",
        "ungroup": f"Any heads go; where that would save nothing, {even}",
        "auto": "Whole key/value groups, the same number from each, or any heads, whichever loses "
        "least: a block's count is rounded to suit.",
    }[policy]
