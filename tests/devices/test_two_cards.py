"""Every family spread over two pretended cards, pruned as on the CPU."""

from __future__ import annotations

import pytest
import torch

import pruning
from pruning.pipeline import prune
from tests.helpers import families
from tests.helpers.on_device import CUT, as_on_the_cpu, losses
from tests.helpers.virtual_device import virtual_device


@pytest.mark.parametrize("family", families.EVERY_FAMILY)
def test_every_family_spread(family):
    as_on_the_cpu(family, "cuda", families.recipe(**CUT), cards=2)


def test_a_folder_spread(model_folder):
    recipe = families.recipe(**CUT)
    expected = losses(prune(pruning.load(str(model_folder), device="cpu"), recipe).pruned)
    with virtual_device("cuda", cards=2):
        loaded = pruning.load(str(model_folder), device="cuda", placement="spread")
        places = {str(p.device) for p in loaded.model.parameters()}
        got = losses(prune(loaded, recipe).pruned)
    assert places == {"cuda:0", "cuda:1"}
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
