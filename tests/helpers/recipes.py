"""Recipes that tests begin with."""

from __future__ import annotations

from app.session import state
from pruning.artifacts.recipe import Recipe


def plain_recipe() -> Recipe:
    """On the text of the embedded measurement, by the recipe's defaults: an even share of the FFN
    channels of each block goes. A visit begins with ``state.initial_recipe()`` instead."""
    measured = state.demo_measurement()
    text = {"source": measured.corpus, "samples": measured.samples, "seq_len": measured.seq_len}
    return Recipe.parse({"calibration": text, "ffn": {"ratio": 0.2}, "seed": measured.seed})
