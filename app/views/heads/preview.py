"""What the Heads page draws: the plan of the draft at the drawn τ, and the graph of each block."""

from __future__ import annotations

import networkx as nx
import streamlit as st

from app.components.widgets import needs_measurement
from app.session.positions import positions_of_blocks
from app.session.state import draft_recipe
from pruning.artifacts.measurement import Measurement
from pruning.artifacts.plan import Plan
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.rules import Budget, Marks
from pruning.criteria import CRITERIA
from pruning.planning.checks import block_range
from pruning.planning.graph import block_graph
from pruning.planning.loss_curves import has_loss_curves, plan_losses
from pruning.planning.planner import make_plan
from pruning.utils.errors import HeadroomError, NeedsMeasurement

FIRST_LOOK = 0.10
"""τ that is drawn until the recipe has one, in nats."""


def preview(measurement: Measurement, tau: float) -> tuple[Recipe, Plan]:
    """The draft with the drawn τ and its plan, so that fates follow the recipe's other rules.
    What stands in the way is said in one sentence and left out."""
    recipe = draft_recipe().changed(heads={"threshold": tau if tau > 0 else None})
    try:
        block_range(recipe, len(measurement.blocks))
    except HeadroomError as error:  # meant for another model
        st.warning(f"{error} Until then this page counts every block.")
        recipe = recipe.changed(blocks={"start": 0, "end": None})
    while True:
        try:
            return recipe, make_plan(measurement, recipe)
        except HeadroomError as error:
            recipe = _without(recipe, error)


def _without(recipe: Recipe, error: HeadroomError) -> Recipe:
    """``recipe`` without what ``error`` is about; raises it when nothing is left to leave out."""
    usual = Recipe()
    if isinstance(error, NeedsMeasurement):
        st.warning(
            f"{needs_measurement(error)} Until then this page ranks heads by "
            f"{CRITERIA.entry(usual.heads.score).title}."
        )
        scores = {kind: {"score": getattr(usual, kind).score} for kind in ("heads", "ffn")}
        return recipe.changed(**scores, allocation=usual.allocation)
    if recipe.marks:
        st.warning(f"{error} Until then this page leaves the marks aside.")
        return recipe.changed(marks=dict.fromkeys(recipe.marks, {}))
    if recipe.budget.given:
        st.warning(f"{error} Until then this page leaves the budget aside.")
        return recipe.changed(budget=Budget().model_dump())
    raise error


def graph_of(measurement: Measurement, block: int, recipe: Recipe, plan: Plan) -> nx.Graph:
    """The similarity graph of one block, with the marks of the draft."""
    positions = positions_of_blocks(measurement)[block]
    marks = draft_recipe().marks.get(block, Marks())
    return block_graph(measurement, plan, recipe, block, positions, marks)


def losses_per_block(measurement: Measurement, plan: Plan) -> dict[str, list[float]] | None:
    """Nats per token that each module costs by its loss curve; None without loss curves."""
    return plan_losses(measurement, plan) if has_loss_curves(measurement) else None
