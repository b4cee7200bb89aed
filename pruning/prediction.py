"""The loss that a cut is expected to cost, from cached statistics alone.

To second order, an error δ of what a module adds to the residual stream costs
``½ E[(g·δ)²]`` nats per token, with g the loss gradient there (Fisher information). Taking g and
δ as unrelated in direction gives ``½ E‖g‖² E‖δ‖² / d``, and ``E‖δ‖²`` after a refit is measured
for every number of kept units (:mod:`pruning.measure.curves`). Numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pruning.errors import NeedsMeasurement
from pruning.measurement import CURVE_POINTS, Measurement
from pruning.plan import ModulePlan, Plan
from pruning.shape import KINDS, ModuleShape

CURVES = {"query": "query_refit_error", "kv_group": "kv_group_refit_error"}
"""Refit errors by head policy; of any other, ``refit_error``."""


@dataclass(frozen=True)
class Choice:
    """One way to cut a module: what it keeps and the ``loss`` in nats it is expected to cost.
    ``policy`` is the head policy ("" for an FFN)."""

    kept: int
    parameters: int
    loss: float
    policy: str = ""


def can_predict(measurement: Measurement) -> bool:
    """Whether ``measurement`` has the gradient pass and the refit errors."""
    names = measurement.blocks[0].ffn.statistics.keys()
    return {"fisher_output", "refit_error"} <= names


def require(measurement: Measurement) -> None:
    """Raise NeedsMeasurement when the loss cannot be predicted from ``measurement``."""
    if not can_predict(measurement):
        raise NeedsMeasurement("Predicting the loss", "a pass for refit errors", "--curves")


def per_squared_error(statistics: Mapping[str, np.ndarray], hidden_size: int) -> float:
    """Nats per unit of squared error of the module's output: ``½ E‖g‖² / d``."""
    return 0.5 * float(statistics["fisher_output"][0]) / hidden_size


def ffn_choices(
    statistics: Mapping[str, np.ndarray], shape: ModuleShape, hidden_size: int, multiple: int = 1
) -> list[Choice]:
    """Widths of an FFN, the whole one first, in steps of 1/CURVE_POINTS or of ``multiple``."""
    step = max(multiple, 1)
    if step * CURVE_POINTS < shape.units:
        step *= -(-shape.units // (step * CURVE_POINTS))
    kept = np.unique([*range(step, shape.units, step), shape.units])[::-1]
    losses = ffn_losses(statistics, shape, hidden_size, kept)
    return [
        Choice(int(k), shape.parameters(int(k), 0), float(loss))
        for k, loss in zip(kept, losses, strict=True)
    ]


def ffn_losses(
    statistics: Mapping[str, np.ndarray], shape: ModuleShape, hidden_size: int, kept: Iterable[int]
) -> np.ndarray:
    """Expected loss of an FFN that keeps ``kept`` channels [k]."""
    places = np.linspace(0, shape.units, CURVE_POINTS + 1).round()
    errors = np.interp(np.asarray(kept), places, statistics["refit_error"])
    return errors * per_squared_error(statistics, hidden_size)


def head_choices(
    statistics: Mapping[str, np.ndarray],
    shape: ModuleShape,
    hidden_size: int,
    policies: Iterable[str],
) -> list[Choice]:
    """Ways to cut a module's heads by the given policies, the whole module first."""
    price = per_squared_error(statistics, hidden_size)
    whole = shape.parameters(shape.units, shape.groups)
    found = [Choice(shape.units, whole, 0.0)]
    for policy in policies if shape.units_per_group > 1 else ("",):
        curve = statistics[CURVES.get(policy, "refit_error")]
        step = shape.units // (len(curve) - 1)
        for place in range(len(curve) - 2, 0, -1):
            kept = step * place
            parameters = shape.parameters(kept, _groups_left(shape, policy, kept))
            if parameters < whole:
                found.append(Choice(kept, parameters, float(curve[place]) * price, policy))
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
    hidden = measurement.shape.hidden_size
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for size, measured, block in zip(
        measurement.shape.blocks, measurement.blocks, plan.blocks, strict=True
    ):
        ffn = ffn_losses(measured.ffn.statistics, size.ffn, hidden, [len(block.ffn.kept)])
        found["ffn"].append(float(ffn[0]))
        heads = _head_loss(measured.attention.statistics, size.attention, hidden, block.attention)
        found["attention"].append(heads)
    return found


def _head_loss(statistics, shape: ModuleShape, hidden: int, module: ModulePlan) -> float:
    curve = statistics["refit_error"]
    place = len(module.kept)
    if shape.units_per_group > 1 and not module.ungrouped:
        curve = statistics[CURVES["kv_group" if module.grouped else "query"]]
        place = place * (len(curve) - 1) // shape.units
    return float(curve[place]) * per_squared_error(statistics, hidden)
