"""Recipes in one line."""

from __future__ import annotations

from pruning.recipe import Recipe


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
