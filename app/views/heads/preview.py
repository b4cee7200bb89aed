"""What the Heads page draws: the plan of the draft at the drawn τ, places of nodes, counts."""

from __future__ import annotations

import numpy as np
import streamlit as st

from app.charts.graph import HeadNode
from app.charts.positions import node_positions
from app.charts.sheet import Tile
from app.components.widgets import needs_measurement
from app.session.state import draft_recipe
from app.views.heads.selection import mark_of
from pruning.artifacts.measurement import Measurement
from pruning.artifacts.plan import Plan
from pruning.artifacts.recipe import Budget, Recipe
from pruning.criteria import CRITERIA
from pruning.planning.analysis import (
    SimilarityCount,
    count_similar,
    head_importance,
    nearest,
    ranks,
)
from pruning.planning.loss_curves import has_loss_curves, plan_losses
from pruning.planning.planner import block_range, make_plan
from pruning.utils.errors import HeadroomError, NeedsMeasurement

FIRST_LOOK = 0.10
"""τ that is drawn until the recipe has one, in nats."""


def fingerprint(measurement: Measurement) -> tuple:
    """What tells two measurements apart, for caches."""
    m = measurement
    return (
        m.model,
        m.revision,
        m.dtype,
        m.corpus_fingerprint,
        m.samples,
        m.seq_len,
        m.seed,
        m.seconds,
    )


@st.cache_data(show_spinner=False, max_entries=16)
def fixed_positions(key: tuple, _measurement: Measurement) -> list[np.ndarray]:
    """Node positions of every block; they do not know τ."""
    return [node_positions(block.divergence) for block in _measurement.blocks]


@st.cache_data(show_spinner=False, max_entries=64)
def counts_per_block(
    key: tuple, threshold: float, _measurement: Measurement
) -> list[SimilarityCount]:
    """Edges and groups of every block at one τ."""
    return [count_similar(block.divergence, threshold) for block in _measurement.blocks]


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


def head_nodes(measurement: Measurement, block: int, recipe: Recipe, plan: Plan) -> list[HeadNode]:
    """What the graph says about each head."""
    divergence = measurement.blocks[block].divergence
    importance = head_importance(measurement, block, recipe.heads.score, recipe.seed)
    places = ranks(importance)
    per_group = measurement.shape.blocks[block].attention.units_per_group
    reasons = plan.blocks[block].attention.reasons()
    nodes = []
    for head in range(len(divergence)):
        near = nearest(divergence, head)[:1] or [(None, None)]
        nodes.append(
            HeadNode(
                head,
                head // per_group,
                float(importance[head]),
                int(places[head]),
                *near[0],
                reasons.get(head),
                mark_of(block, head),
            )
        )
    return nodes


def tiles(measurement: Measurement, tau: float, plan: Plan) -> list[Tile]:
    """Every block as the sheet draws it."""
    key = fingerprint(measurement)
    parts = zip(
        fixed_positions(key, measurement),
        measurement.blocks,
        plan.blocks,
        counts_per_block(key, tau, measurement),
        strict=True,
    )
    return [
        Tile(index, places, measured.divergence, block.attention, count)
        for index, (places, measured, block, count) in enumerate(parts)
    ]


def expected_losses(measurement: Measurement, plan: Plan) -> dict[str, list[float]] | None:
    """Nats per token that each module is expected to cost; None where that was not measured."""
    return plan_losses(measurement, plan) if has_loss_curves(measurement) else None
