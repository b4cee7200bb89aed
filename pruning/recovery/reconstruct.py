"""The paper's reconstruction: fit in_proj and out_proj before the cut, then cut."""

from pruning.recovery.base import RECOVERIES, Recovery


def finish(out_proj):
    """The reconstructed weights (already in place), cut."""
    return out_proj.cut()


RECOVERIES.add(
    "reconstruct",
    Recovery(finish, reconstructs=True, everywhere=True, solves=5.0),
    title="Reconstruction (paper)",
    summary="Before each cut, both layers are fitted to the dense outputs on the pruned stream.",
    source="Li, Dong, Lei, CPAL 2025, Algorithms 1, 3, 4",
    cost="closed form",
    place=30,
)
