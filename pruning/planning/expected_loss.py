"""The loss that a cut is expected to cost, from cached statistics alone (numpy only).

What it costs to keep a number of units of a module is measured for some numbers
(:mod:`pruning.measure.loss_curves`); between them it is read off a power law of what is removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import lcm

import numpy as np

from pruning.artifacts.measurement import CURVE_POINTS, Measurement
from pruning.artifacts.plan import ModulePlan, Plan
from pruning.artifacts.shapes import KINDS, ModuleShape
from pruning.utils.errors import NeedsMeasurement

LOSS_CURVES = {"query": "query_expected_loss", "kv_group": "kv_group_expected_loss"}
"""Expected losses by head policy; of any other, ``expected_loss``."""

WIDTHS = 64
"""Widths that an FFN is offered in, about."""


_TINY = 1e-12


@dataclass(frozen=True)
class Choice:
    """One way to cut a module: what it keeps and the ``loss`` in nats it is expected to cost.
    ``policy`` is the head policy ("" for an FFN)."""

    kept: int
    parameters: int
    loss: float
    policy: str = ""


def has_loss_curves(measurement: Measurement) -> bool:
    """Whether ``measurement`` has the expected losses."""
    return "expected_loss" in measurement.blocks[0].ffn.statistics


def require(measurement: Measurement) -> None:
    """Raise NeedsMeasurement when the loss cannot be predicted from ``measurement``."""
    if not has_loss_curves(measurement):
        raise NeedsMeasurement("Predicting the loss", "a pass for expected losses", "--curves")


def ffn_choices(
    statistics: Mapping[str, np.ndarray], shape: ModuleShape, multiple: int = 1
) -> list[Choice]:
    """Widths of an FFN, the whole one first, in about WIDTHS steps that ``multiple`` divides (in
    each of its experts)."""
    if shape.fixed:
        return [Choice(shape.units, shape.parameters(shape.units, 0), 0.0)]
    step = lcm(max(multiple, 1), shape.step) * shape.experts
    if step * WIDTHS < shape.units:
        step *= -(-shape.units // (step * WIDTHS))
    kept = np.unique([*range(step, shape.units, step), shape.units])[::-1]
    losses = ffn_losses(statistics, shape, kept)
    return [
        Choice(int(k), shape.parameters(int(k), 0), float(loss))
        for k, loss in zip(kept, losses, strict=True)
    ]


def ffn_losses(
    statistics: Mapping[str, np.ndarray], shape: ModuleShape, kept: Iterable[int]
) -> np.ndarray:
    """Expected loss of an FFN that keeps ``kept`` channels [k]."""
    # by share removed, ascending
    losses = np.maximum(statistics["expected_loss"][::-1].astype(np.float64), _TINY)
    places = np.log(np.arange(1, CURVE_POINTS + 1) / CURVE_POINTS)
    heights = np.log(losses[1:])
    removed = 1.0 - np.asarray(list(kept), dtype=np.float64) / shape.units
    wanted = np.log(np.maximum(removed, _TINY))
    # below the first point the power of the first two, never less than proportional
    power = max((heights[1] - heights[0]) / (places[1] - places[0]), 1.0)
    found = np.interp(wanted, places, heights)
    found = np.where(wanted < places[0], heights[0] + power * (wanted - places[0]), found)
    return np.where(removed > 0.0, np.exp(found), 0.0)


def head_choices(
    statistics: Mapping[str, np.ndarray], shape: ModuleShape, policies: Iterable[str]
) -> list[Choice]:
    """Ways to cut a module's heads by the given policies, the whole module first."""
    whole = shape.parameters(shape.units, shape.groups)
    found = [Choice(shape.units, whole, 0.0)]
    if shape.fixed:
        return found
    for policy in policies if shape.units_per_group > 1 else ("",):
        if policy == "ungroup" and not shape.ungroups:
            continue
        curve = statistics[LOSS_CURVES.get(policy, "expected_loss")]
        step = shape.units // (len(curve) - 1)
        for place in range(len(curve) - 2, 0, -1):
            kept = step * place
            parameters = shape.parameters(kept, _groups_left(shape, policy, kept))
            if parameters < whole:
                found.append(Choice(kept, parameters, float(curve[place]), policy))
    return found


def _groups_left(shape: ModuleShape, policy: str, kept: int) -> int:
    if policy == "query":
        return shape.groups
    if policy == "kv_group":
        return kept // shape.units_per_group
    return kept


def plan_losses(measurement: Measurement, plan: Plan) -> dict[str, list[float]]:
    """Expected loss in nats per token of each block's attention and FFN under ``plan``.

    Each module is looked at alone; the sum over modules is a first guess of the whole.
    Raises NeedsMeasurement.
    """
    require(measurement)
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for size, measured, block in zip(
        measurement.shape.blocks, measurement.blocks, plan.blocks, strict=True
    ):
        ffn = ffn_losses(measured.ffn.statistics, size.ffn, [len(block.ffn.kept)])
        found["ffn"].append(float(ffn[0]))
        heads = head_loss(measured.attention.statistics, size.attention, block.attention)
        found["attention"].append(heads)
    return found


def head_loss(
    statistics: Mapping[str, np.ndarray], shape: ModuleShape, module: ModulePlan
) -> float:
    """Expected loss of an attention module that loses the heads of ``module``, or as many."""
    curve = statistics["expected_loss"]
    place = len(module.kept)
    if shape.units_per_group > 1 and not module.ungrouped:
        curve = statistics[LOSS_CURVES["kv_group" if module.grouped else "query"]]
        place = place * (len(curve) - 1) // shape.units
    return float(curve[place])
