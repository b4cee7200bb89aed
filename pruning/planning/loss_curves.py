"""The loss that a cut costs, read off measured loss curves (numpy only).

A loss curve says what it costs to keep a number of units of a module. It is measured for some
numbers (:mod:`pruning.measure.loss_curves`); between them a power law of the removed share holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import lcm

import numpy as np

from pruning.artifacts.measurement import CURVE_POINTS, Measurement
from pruning.artifacts.plan import ModulePlan, Plan
from pruning.artifacts.shapes import KINDS, ModuleShape
from pruning.criteria.base import Statistics
from pruning.planning.head_policies.base import HEAD_POLICIES, HeadPolicy
from pruning.planning.selection import dense_parameters
from pruning.utils.errors import NeedsMeasurement

WIDTHS = 64
"""Widths that an FFN is offered in, about."""

_TINY = 1e-12


@dataclass(frozen=True)
class Choice:
    """One way to cut a module: the units and parameters that it keeps, and the ``loss`` in nats by
    its curve. ``policy`` is the head policy ("" for an FFN)."""

    kept: int
    parameters: int
    loss: float
    policy: str = ""


def has_loss_curves(measurement: Measurement) -> bool:
    """Whether ``measurement`` was made with loss curves."""
    return "expected_loss" in measurement.blocks[0].ffn.statistics


def require(measurement: Measurement) -> None:
    """Raise NeedsMeasurement when ``measurement`` was made without loss curves."""
    if not has_loss_curves(measurement):
        raise NeedsMeasurement("Predicting the loss", "a pass for expected losses", "--curves")


def ffn_choices(statistics: Statistics, shape: ModuleShape, multiple: int = 1) -> list[Choice]:
    """Widths of an FFN, the whole one first, in about WIDTHS steps that ``multiple`` divides (in
    each of its experts)."""
    if shape.fixed:
        return [Choice(shape.units, dense_parameters(shape), 0.0)]
    step = lcm(max(multiple, 1), shape.step) * shape.experts
    if step * WIDTHS < shape.units:
        step *= -(-shape.units // (step * WIDTHS))
    kept = [*range(step, shape.units, step), shape.units][::-1]
    losses = ffn_losses(statistics, shape, kept).tolist()
    return [Choice(k, shape.parameters(k, 0), loss) for k, loss in zip(kept, losses, strict=True)]


def ffn_losses(statistics: Statistics, shape: ModuleShape, kept: Iterable[int]) -> np.ndarray:
    """Loss in nats of an FFN that keeps ``kept`` channels [k]."""
    # by sparsity, ascending
    losses = np.maximum(statistics["expected_loss"][::-1].astype(np.float64), _TINY)
    places = np.log(np.arange(1, CURVE_POINTS + 1) / CURVE_POINTS)
    heights = np.log(losses[1:])
    sparsity = 1.0 - np.asarray(list(kept), dtype=np.float64) / shape.units
    wanted = np.log(np.maximum(sparsity, _TINY))
    # below the first point the power of the first two, never less than proportional
    power = max((heights[1] - heights[0]) / (places[1] - places[0]), 1.0)
    logs = np.interp(wanted, places, heights)
    logs = np.where(wanted < places[0], heights[0] + power * (wanted - places[0]), logs)
    return np.where(sparsity > 0.0, np.exp(logs), 0.0)


def head_choices(
    statistics: Statistics, shape: ModuleShape, policies: Mapping[str, HeadPolicy]
) -> list[Choice]:
    """Ways to cut a module's heads by the given policies, the whole module first."""
    whole = dense_parameters(shape)
    choices = [Choice(shape.units, whole, 0.0)]
    if shape.fixed:
        return choices
    for name, policy in policies.items():
        curve = statistics[policy.loss_curve]
        step = shape.units // (len(curve) - 1)
        for place in range(len(curve) - 2, 0, -1):
            parameters = policy.parameters_left(shape, step * place)
            if parameters < whole:
                choices.append(Choice(step * place, parameters, float(curve[place]), name))
    return choices


def plan_losses(measurement: Measurement, plan: Plan) -> dict[str, list[float]]:
    """Loss in nats per token of each block's attention and FFN under ``plan``, by its curve.

    Each module is looked at alone; the sum over modules is a first guess of the whole.
    Raises NeedsMeasurement.
    """
    require(measurement)
    losses: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for size, measured, block, width in zip(
        measurement.shape.blocks, measurement.blocks, plan.blocks, plan.widths, strict=True
    ):
        ffn = ffn_losses(measured.ffn.statistics, size.ffn, [width.channels])
        losses["ffn"].append(float(ffn[0]))
        heads = head_loss(measured.attention.statistics, size.attention, block.attention)
        losses["attention"].append(heads)
    return losses


def head_loss(statistics: Statistics, shape: ModuleShape, module: ModulePlan) -> float:
    """Loss in nats of an attention module that loses the heads of ``module``, or as many."""
    if shape.units_per_group == 1 or module.ungrouped:
        return float(statistics["expected_loss"][len(module.kept)])
    curve = statistics[HEAD_POLICIES["kv_group" if module.grouped else "query"].loss_curve]
    return float(curve[len(module.kept) * (len(curve) - 1) // shape.units])
