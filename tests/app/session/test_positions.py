"""Positions of heads are kept with the measurement that they belong to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from app.session.positions import node_positions, positions_of_blocks
from app.session.state import demo_measurement


def test_another_measurement_has_positions_of_its_own():
    demo = demo_measurement()
    assert positions_of_blocks(demo) is positions_of_blocks(demo_measurement())
    other = replace(demo, blocks=demo.blocks[5:7])
    for measurement in (other, demo):
        found = positions_of_blocks(measurement)
        assert len(found) == len(measurement.blocks)
        for block, places in zip(measurement.blocks, found, strict=True):
            np.testing.assert_array_equal(places, node_positions(block.divergence))
