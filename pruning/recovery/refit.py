"""Least-squares refit of the kept out_proj channels after the cut (method section 4.3)."""

from pruning.recovery.base import RECOVERIES, Recovery


def finish(out_proj):
    """``argmin ‖X̂₂[:,S] W − T‖² + λ‖W − W_now‖²``, damping chosen on held-out tokens."""
    return out_proj.refitted()


RECOVERIES.add(
    "refit",
    Recovery(finish, everywhere=True, refits=True, parameters=("recovery.choice",)),
    title="Refit",
    summary="After each cut, the second layer is solved again so that the module also repairs "
    "the drift before it.",
    source="Headroom; cf. SliceGPT and OBS-style reconstruction",
    cost="closed form",
    place=40,
)
