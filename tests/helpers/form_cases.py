"""Cuts and families that the tests of saved forms share."""

from __future__ import annotations

import torch

from pruning.pipeline import prune
from tests.helpers import families

CUT = {"heads__threshold": 0.3, "heads__ratio": 0.2, "ffn__ratio": 0.4}
UNEVEN = {**CUT, "blocks": {"start": 1, "end": 3}}
FFN_ONLY = {"ffn__ratio": 0.4}

WITHOUT_SWITCH = {
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "olmo2",
    "stablelm",
    "stablelm_parallel",
    "phi3",
    "phi4_mini",
}
"""Families whose config cannot give both output layers a bias."""

EXPERTS_AND_HEADS = {"mixtral", "qwen2_moe", "qwen2_moe_some_blocks"}
"""Mixtures whose attention cannot have that bias; recovery gives experts none."""


def family_of(tiny) -> str:
    """The name of a tiny model's variant."""
    return tiny.source.split("-")[0]


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal but for the order of sums."""
    return torch.allclose(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))


def ungrouped(loaded, **changes):
    """A run in which every query head that is left has its own key/value head."""
    run = prune(
        loaded,
        families.recipe(heads__ratio=0.67, heads__policy="ungroup", ffn__ratio=0.3, **changes),
    )
    assert all(width.heads == width.kv_heads == 2 for width in run.widths)
    return run
