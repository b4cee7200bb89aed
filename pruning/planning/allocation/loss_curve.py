"""Ours: the widths that cost the least loss, by measured loss curves, for what may be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pruning.artifacts.measurement import Measurement
from pruning.artifacts.recipe import Recipe
from pruning.planning.allocation.base import ALLOCATIONS, Allocation, BlockSparsity
from pruning.planning.allocation.budget import kept_parameters
from pruning.planning.head_policies.base import alternatives
from pruning.planning.heads import plan_heads
from pruning.planning.loss_curves import Choice, ffn_choices, head_choices, head_loss, require
from pruning.planning.selection import attention_parameters
from pruning.utils.errors import UsageError

_HALVINGS = 100


def allocate(measurement: Measurement, recipe: Recipe, blocks: range) -> list[BlockSparsity]:
    """Minimise the sum of the modules' losses with at most the allowed parameters.

    Each module offers its widths (and head policies) with parameters and loss; for a price λ per
    parameter every module takes its best offer, and the smallest λ that meets the budget is found
    by bisection (Lagrangian relaxation, exact on the lower convex hull). Raises NeedsMeasurement
    when the measurement has no loss curves.
    """
    require(measurement)
    offers: list[list[Choice]] = []
    for index in blocks:
        offers.append(_head_offers(measurement, recipe, index))
        shape, measured = measurement.shape.blocks[index].ffn, measurement.blocks[index].ffn
        offers.append(ffn_choices(measured.statistics, shape, recipe.ffn.multiple))
    taken = cheapest(offers, kept_parameters(measurement, recipe, blocks))
    return [
        BlockSparsity(
            heads=1.0 - heads.kept / measurement.shape.blocks[index].attention.units,
            ffn=1.0 - ffn.kept / measurement.shape.blocks[index].ffn.units,
            policy=heads.policy or None,
        )
        for index, heads, ffn in zip(blocks, taken[::2], taken[1::2], strict=True)
    ]


def _head_offers(measurement: Measurement, recipe: Recipe, index: int) -> list[Choice]:
    """Ways to cut the heads of a block; where it has marks, with what each comes to under them."""
    shape = measurement.shape.blocks[index].attention
    statistics = measurement.blocks[index].attention.statistics
    choices = head_choices(statistics, shape, alternatives(recipe.heads.policy, shape))
    if index not in recipe.marks:
        return choices
    offers: list[Choice] = []
    refusals: list[UsageError] = []
    for choice in choices:
        sparsity = 1.0 - choice.kept / shape.units
        try:
            plan = plan_heads(measurement, recipe, index, sparsity, choice.policy or None)
        except UsageError as error:  # not by this policy
            refusals.append(error)
            continue
        parameters, loss = attention_parameters(plan, shape), head_loss(statistics, shape, plan)
        offers.append(replace(choice, parameters=parameters, loss=loss))
    if not offers:
        raise refusals[-1]
    return offers


def cheapest(offers: Sequence[Sequence[Choice]], kept: int) -> list[Choice]:
    """One choice per module with at most ``kept`` parameters in all, or the least there are."""

    # [module, offer]; a module with fewer offers than others never takes what is not there
    wide = range(max(map(len, offers)))
    absent = Choice(0, 0, np.inf)
    table = [[*module, *[absent] * (len(wide) - len(module))] for module in offers]
    losses = np.array([[choice.loss for choice in module] for module in table])
    parameters = np.array([[choice.parameters for choice in module] for module in table])
    modules = np.arange(len(offers))

    def best(price: float) -> np.ndarray:
        places: np.ndarray = np.argmin(losses + price * parameters, axis=1)
        return places

    def fits(price: float) -> bool:
        return bool(parameters[modules, best(price)].sum() <= kept)

    low, high = 0.0, 1e-12
    while not fits(high):
        high *= 10.0
        if high > 1e12:
            return [min(module, key=lambda c: c.parameters) for module in offers]
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if middle in (low, high):  # no price lies between
            break
        low, high = (low, middle) if fits(middle) else (middle, high)
    taken = zip(offers, best(high).tolist(), strict=True)
    return _filled([module[place] for module, place in taken], offers, kept)


def _filled(taken: list[Choice], offers: Sequence[Sequence[Choice]], kept: int) -> list[Choice]:
    """``taken`` with what the budget still allows given back where it saves most per parameter:
    off the convex hull, and when a few modules take large steps."""
    taken, left = list(taken), kept - sum(choice.parameters for choice in taken)

    def gain(step: tuple[int, Choice]) -> float:
        place, choice = step
        more = choice.parameters - taken[place].parameters
        return (taken[place].loss - choice.loss) / more

    while True:
        steps = [
            (place, choice)
            for place, module in enumerate(offers)
            for choice in module
            if 0 < choice.parameters - taken[place].parameters <= left
            and choice.loss < taken[place].loss
        ]
        if not steps:
            return taken
        place, choice = max(steps, key=gain)
        left -= choice.parameters - taken[place].parameters
        taken[place] = choice


ALLOCATIONS.add(
    "predicted",
    Allocation(allocate, needs_loss_curves=True, parameters=("calibration.curve_samples",)),
    title="Least predicted loss",
    summary="Each module gives up what costs least per parameter on its loss curve: the error that "
    "a refit leaves, weighed token by token by how much the loss depends on it.",
    source="Headroom; Fisher information, cf. Optimal Brain Surgeon",
    cost="reads gradients",
    place=60,
)
