"""Every family on a pretended accelerator, pruned as on the CPU."""

from __future__ import annotations

import pytest

from tests.helpers import families
from tests.helpers.on_device import CUT, KINDS, as_on_the_cpu, moved
from tests.helpers.virtual_device import virtual_device


@pytest.mark.parametrize("family", families.EVERY_FAMILY)
def test_rows_are_picked_by_numbers_that_are_on_the_device(family):
    with virtual_device("cuda"):
        loaded = moved(family, "cuda")
        modules = [
            loaded.adapter.module(block, kind)
            for block in loaded.adapter.blocks(loaded.model)
            for kind in ("attention", "ffn")
        ]
        places = {p.rows.device.type for module in modules for p in module.in_proj.values()}
    assert places == {"cuda"}


@pytest.mark.parametrize("family", families.EVERY_FAMILY)
@pytest.mark.parametrize("kind", KINDS)
def test_every_family(family, kind):
    as_on_the_cpu(family, kind, families.recipe(**CUT))
