"""Least-squares refit of the kept level-2 channels after the cut (method section 4.3)."""

from pruning.recovery.base import RECOVERIES, Recovery


def finish(level):
    """``argmin ‖X̂₂[:,S] W − T‖² + λ‖W − W_now‖²``, damping chosen on held-out tokens."""
    return level.refitted()


RECOVERIES.add(
    "refit",
    Recovery(finish, everywhere=True),
    title="Refit",
    summary="After each cut, the second layer is solved again so that the module also repairs "
    "the drift before it.",
    source="Headroom; cf. SliceGPT and OBS-style reconstruction",
    cost="closed form",
    place=40,
)
