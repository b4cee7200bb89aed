"""No tuning: what the recovery gives is the result."""

from pruning.tuning.base import TUNINGS, Tuning

TUNINGS.add(
    "none",
    Tuning(prepare=None),
    title="None",
    summary="Nothing is trained.",
    source="the paper's setting",
    cost="closed form",
    place=10,
)
