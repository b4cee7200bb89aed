"""Bias compensation: the mean of what was removed goes into the out_proj bias."""

from pruning.recovery.base import RECOVERIES, Recovery


def finish(out_proj):
    """``b + E[x_removed] W_removed``, weights unchanged."""
    return out_proj.compensated()


RECOVERIES.add(
    "bias",
    Recovery(finish, adds_bias=True, solves=0.0),
    title="Bias compensation",
    summary="Adds the mean output of the removed units to the module's bias.",
    source="FLAP, An et al., AAAI 2024",
    cost="closed form",
    place=20,
)
