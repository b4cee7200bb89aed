"""Every family on a pretended accelerator, pruned as on the CPU."""

from __future__ import annotations

import pytest

from tests.helpers import families
from tests.helpers.on_device import CUT, KINDS, as_on_the_cpu


@pytest.mark.parametrize("family", families.EVERY_FAMILY)
@pytest.mark.parametrize("kind", KINDS)
def test_every_family(family, kind):
    as_on_the_cpu(family, kind, families.recipe(**CUT))
