"""The gradient pass on a pretended card, which takes several windows at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pruning.measure import gradient_pass
from pruning.models.execution import blockwise
from pruning.models.execution.blockwise import Frame
from pruning.pipeline import measure_model
from tests.helpers import families
from tests.helpers.on_device import KINDS, moved
from tests.helpers.virtual_device import virtual_device

RECIPE = families.recipe(calibration__gradient_samples=5, calibration__gradient_seq_len=16)
NAMES = (*gradient_pass.TAYLOR, "fisher_unit", "fisher_output")


def _statistics(measurement):
    """What the gradient pass found, module by module."""
    modules = [m for block in measurement.blocks for m in (block.attention, block.ffn)]
    return [{name: module.statistics[name] for name in NAMES} for module in modules]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama_grouped", "gpt2", "bloom", "falcon_multi_query"])
def test_several_windows_at_once_find_what_one_at_a_time_does(family, kind, monkeypatch):
    # three windows go through a block together, then two; through the output layer two, two, one
    monkeypatch.setattr(blockwise, "TOKENS_PER_BATCH", 3 * 16)
    loaded = families.wrap(families.build(family), f"{family}-{kind}-alone")
    alone = _statistics(measure_model(loaded, RECIPE, gradients=True))
    vocabulary = loaded.model.config.vocab_size
    monkeypatch.setattr(gradient_pass, "_LOGITS_AT_ONCE", 2 * 16 * vocabulary)
    sizes, logits = [], Frame.logits
    with monkeypatch.context() as patch, virtual_device(kind):
        patch.setattr(
            Frame, "logits", lambda f, ids, h: sizes.append(len(ids)) or logits(f, ids, h)
        )
        runs = [
            measure_model(
                replace(moved(family, kind), identity=f"{family}-{kind}-{turn}"),
                RECIPE,
                gradients=True,
            )
            for turn in range(2)
        ]
    assert sizes == [2, 2, 1] * 2
    together, again = map(_statistics, runs)
    for one, other, same in zip(alone, together, again, strict=True):
        for name in NAMES:
            largest = np.abs(one[name]).max()
            np.testing.assert_allclose(other[name], one[name], rtol=0, atol=1e-6 * largest)
            np.testing.assert_array_equal(other[name], same[name])
