"""The pages on a measurement of a mixture of experts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from app.session import state

EXPERTS = 4
WHOLE = "The router stays whole."


@pytest.fixture(scope="module")
def mixture():
    """The demo measurement as if its channels belonged to four experts."""
    measured = state.demo_measurement()
    tokens = np.array([500.0, 40.0, 0.0, 900.0], dtype=np.float32)
    blocks = tuple(
        block.with_statistics("ffn", {"expert_tokens": tokens}) for block in measured.blocks
    )
    shapes = tuple(
        replace(shape, ffn=replace(shape.ffn, experts=EXPERTS, active=2, step=8, whole=WHOLE))
        for shape in measured.shape.blocks
    )
    return replace(measured, blocks=blocks, shape=replace(measured.shape, blocks=shapes))


@pytest.mark.parametrize("page", ["heads", "activations", "prune", "model"])
def test_every_page_draws(visit, mixture, page):
    at = visit(page, measurement=mixture)
    assert not at.exception
    assert at.get("plotly_chart") or page == "model"
    if page in ("prune", "model"):
        facts = [str(table.value["value"].to_dict()) for table in at.table]
        assert WHOLE in " ".join([*facts, *(box.value for box in at.info)])
