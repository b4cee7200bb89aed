"""Reconstruction before the cut and refit after it."""

from pruning.recovery.base import RECOVERIES, Recovery


def finish(out_proj):
    """Refit toward the reconstructed weights."""
    return out_proj.refitted()


RECOVERIES.add(
    "full",
    Recovery(
        finish,
        reconstructs=True,
        everywhere=True,
        refits=True,
        parameters=("recovery.choice",),
        solves=5.0,
    ),
    title="Full",
    summary="Reconstruction before each cut and refit after it.",
    source="Li, Dong, Lei, CPAL 2025, Algorithms 1, 3, 4, and Headroom's refit",
    cost="closed form",
    place=50,
)
