"""Fixtures of the chart tests."""

from __future__ import annotations

import pytest

from pruning.artifacts.measurement import Measurement


@pytest.fixture(scope="module")
def demo() -> Measurement:
    return Measurement.read("assets/demo-measurement.json.gz")
