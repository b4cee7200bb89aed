"""Runs on a device, pretended or real, beside the same on the CPU."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from pruning.artifacts.recipe import Recipe
from pruning.evaluate.perplexity import batched_losses
from pruning.models.execution.offload import place_blocks
from pruning.models.loading.loaded import LoadedModel
from pruning.pipeline import prune
from pruning.surgery.result import PruneRun
from tests.helpers import families
from tests.helpers.virtual_device import virtual_device

KINDS = ("cuda", "mps")
CUT = {"heads__ratio": 0.3, "ffn__ratio": 0.3}


def losses(loaded: LoadedModel) -> Tensor:
    ids = families.token_ids()
    return torch.cat([part.cpu().flatten() for part in batched_losses(loaded.model, ids)])


def moved(family: str, kind: str, cards: int = 1) -> LoadedModel:
    """A tiny model on the device, or spread over its cards; what is measured there is not mixed
    with the CPU's."""
    model = families.build(family).to(kind)
    loaded = replace(families.wrap(model, f"{family}-{kind}"), identity=f"{kind}{cards}:{family}")
    if cards > 1:
        devices = [torch.device(kind, card) for card in range(cards)]
        place_blocks(loaded.adapter.blocks(model), devices, stay=True)
    return loaded


def as_on_the_cpu(family: str, kind: str, recipe: Recipe, cards: int = 1) -> PruneRun:
    """Both pruned models lose the same on every token, and the device's stays there."""
    with virtual_device(kind, cards):
        run, there, got = _there(family, kind, recipe, cards)
    assert there <= {kind, *(f"{kind}:{card}" for card in range(cards))}
    assert len(there) == cards
    expected = losses(_on_the_cpu(family, recipe.to_yaml()).pruned)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    return run


def on_a_card_as_on_the_cpu(family: str, recipe: Recipe) -> None:
    """Likewise on a real CUDA device, which adds float32 numbers in an order of its own: the same
    plan, and losses as close as float32 fits leave them."""
    run, there, got = _there(family, "cuda", recipe)
    assert there == {"cuda:0"}
    expected = _on_the_cpu(family, recipe.to_yaml())
    assert _removed(run) == _removed(expected)
    torch.testing.assert_close(got, losses(expected.pruned), atol=1e-3, rtol=1e-3)


def _removed(run: PruneRun) -> list[tuple[int, ...]]:
    modules = [module for block in run.plan.blocks for module in (block.attention, block.ffn)]
    return [module.removed for module in modules]


def _there(
    family: str, kind: str, recipe: Recipe, cards: int = 1
) -> tuple[PruneRun, set[str], Tensor]:
    """The run on the device, where its weights are, and what the pruned model loses."""
    run = prune(moved(family, kind, cards), recipe)
    places = {str(parameter.device) for parameter in run.pruned.model.parameters()}
    return run, places, losses(run.pruned)


@cache
def _on_the_cpu(family: str, recipe: str) -> PruneRun:
    loaded = families.wrap(families.build(family), family)
    return prune(loaded, Recipe.from_yaml(recipe))
