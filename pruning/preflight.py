"""What a request would do, and whether it can work, before weights are read or text is measured.

Known beforehand are the recipe, the model's config, the target folder and whether a text is there;
what depends on scores is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.artifacts.recipe import Recipe
from pruning.artifacts.shapes import footprint, full_widths
from pruning.data.windows import check_length, check_source
from pruning.distributed.ranks import ALONE, Ranks
from pruning.planning.checks import Outlook, check_recipe
from pruning.planning.head_policies import policy_for
from pruning.planning.planner import needs_gradients, needs_loss_curves
from pruning.presets.base import cost_of
from pruning.registries import CORPORA, FORMS, RECOVERIES
from pruning.tuning import TUNINGS, check_installed, check_tuning

if TYPE_CHECKING:
    from pruning.models.loading.memory_needs import MemoryEstimate
    from pruning.models.loading.outline import Outline

DEFAULT_FORM = "compact"


@dataclass(frozen=True)
class Forecast:
    """A request that can work, as far as anyone can tell yet. ``remarks``: what to know."""

    recipe: Recipe
    outline: Outline
    outlook: Outlook
    needs: MemoryEstimate
    placement: str
    form: str | None
    remarks: tuple[str, ...]

    def passes(self) -> tuple[str, ...]:
        """What will be run over the text, in order."""
        recipe = self.recipe
        calibration, recovery = recipe.calibration, RECOVERIES.entry(recipe.recovery.method)
        passes = [f"forward pass over {calibration.samples} x {calibration.seq_len} tokens"]
        if needs_gradients(recipe):
            windows = f"{calibration.gradient_samples} x {calibration.gradient_seq_len}"
            passes.append(f"gradient pass over {windows} tokens")
        if needs_loss_curves(recipe):
            passes.append("loss curves")
        if recovery.value.uses_tokens:
            passes.append(f"recovery {recovery.name}")
        if TUNINGS[recipe.tune.method].prepare:
            passes.append(f"tuning {recipe.tune.method}, {recipe.tune.epochs} x")
        return tuple(passes)

    def as_dict(self) -> dict[str, Any]:
        """Plain data. Sizes ``after`` are the largest that can come out where they are not
        ``exact``; biases that recovery may add are not among them."""
        shape, outlook, recipe = self.outline.shape, self.outlook, self.recipe
        before = footprint(shape, full_widths(shape), 0).parameters
        size, heads = shape.bytes_per_element, shape.blocks[0].attention
        return {
            "model": recipe.model.source,
            "architecture": shape.architecture,
            "dtype": self.outline.dtype,
            "saved_dtype": shape.dtype,
            "blocks": len(shape.blocks),
            "blocks_to_cut": [outlook.blocks.start, outlook.blocks.stop],
            "parameters_before": before,
            "parameters_after": outlook.most,
            "bytes_before": before * size,
            "bytes_after": outlook.most * size,
            "exact": outlook.widths is not None,
            "allocation": recipe.allocation,
            "head_policy": recipe.heads.policy if heads.units_per_group > 1 else None,
            "cost": cost_of(recipe),
            "passes": list(self.passes()),
            "device": self.needs.device,
            "placement": self.placement,
            "needed_bytes": self.needs.needs(self.placement)[0],
            "memory": self.needs.sentence(self.placement),
            "form": self.form,
            "remarks": list(self.remarks),
        }


def check_request(
    recipe: Recipe, *, out: Path | None = None, form: str | None = None, texts: Sequence[str] = ()
) -> None:
    """The part of :func:`preflight` that needs no model, so that it answers at once."""
    if form is not None:
        FORMS.entry(form)
    if out is not None:
        from pruning.checkpoint.saving import check_target

        check_target(out, form or DEFAULT_FORM)
    check_source(recipe.calibration.source)
    check_installed(recipe)
    for text in texts:
        check_source(text, tokens=False)


def preflight(
    recipe: Recipe,
    *,
    variants: Sequence[Recipe] = (),
    device: str = "auto",
    placement: str = "auto",
    out: Path | None = None,
    form: str | None = None,
    texts: Sequence[str] = (),
    prunes: bool = True,
    loss_curves: bool = False,
    ranks: Ranks = ALONE,
) -> Forecast:
    """Check everything about a run of ``recipe`` on its own model that can be checked without its
    weights. ``variants``: recipes that will be run on the same loaded model; ``texts`` to evaluate
    on; without ``prunes`` only what a measurement needs is checked; ``ranks``: who shares the work.

    Raises UsageError, SourceError, Unsupported, OutOfMemory and HeadroomError, one sentence each.
    """
    check_request(recipe, out=out, form=form, texts=texts)
    from pruning.models.loading import memory_estimate, resolve
    from pruning.models.loading.memory_needs import PLACEMENTS
    from pruning.models.loading.outline import outline
    from pruning.pipeline import memory_task
    from pruning.utils.registry import unknown_name

    if placement not in ("auto", *PLACEMENTS):
        raise unknown_name("placement", placement, ("auto", *PLACEMENTS))
    where = resolve.resolve_device(device)
    found = outline(recipe.model.source, recipe.model.revision, recipe.model.dtype)
    check_length(found.model, recipe.calibration.seq_len)
    outlook = Outlook.untouched(found.shape)
    _check_shared(recipe, ranks, prunes, loss_curves)
    if prunes:
        outlook = check_recipe(recipe, found.shape)
        for variant in variants:
            check_recipe(variant, found.shape)
    remarks = FORMS[form].check(found, recipe, outlook) if form else ()
    task = memory_task(recipe, prunes=prunes, loss_curves=loss_curves).shared(ranks)
    cards = len(resolve.compute_devices(where))
    needs = memory_estimate.of_outline(found, where, task, cards)
    chosen = memory_estimate.chosen_placement(needs, placement, task)
    if prunes:
        for each in (recipe, *variants):
            check_tuning(each, found.model, found.adapter, chosen)
    remarks = (*remarks, *(_remarks(recipe, found, outlook) if prunes else ()))
    return Forecast(recipe, found, outlook, needs, chosen, form, remarks)


def _check_shared(recipe: Recipe, ranks: Ranks, prunes: bool, loss_curves: bool) -> None:
    """Raise UsageError where a pass of ``recipe`` has fewer windows than there are ``ranks``."""
    from pruning.models.execution.blockwise import share_of

    rule, texts = recipe.calibration, recipe.recovery.samples or recipe.calibration.samples
    counts = [rule.samples, *([texts] if prunes else [])]
    if needs_gradients(recipe):
        counts.append(rule.gradient_samples)
    if loss_curves or needs_loss_curves(recipe):
        counts.append(texts // 2)  # those that are probed
    share_of(ranks, min(counts), rule.seq_len)


def _remarks(recipe: Recipe, found: Outline, outlook: Outlook) -> tuple[str, ...]:
    shape = found.shape
    remarks = [*shape.fixed.values(), *shape.whole]
    attention = shape.blocks[outlook.blocks.start].attention
    if attention.units_per_group > 1 and not attention.fixed:
        remarks.append(policy_for(recipe.heads.policy, attention).note(attention))
    if not outlook.cuts and not recipe.heads.threshold:
        remarks.append("Nothing would go: set a budget, a ratio, a threshold or marks.")
    corpus = recipe.calibration.source
    if corpus in CORPORA and "huggingface.co" in CORPORA.entry(corpus).source:
        remarks.append(f"The corpus {corpus!r} is read from the Hugging Face hub.")
    return tuple(remarks)
