"""No recovery: the kept weights stay as they are."""

from pruning.recovery.base import RECOVERIES, Recovery


def finish(out_proj):
    """The cut weights, unchanged."""
    return out_proj.cut()


RECOVERIES.add(
    "none",
    Recovery(finish, uses_tokens=False, solves=0.0),
    title="None",
    summary="Cut and leave the rest as it is.",
    source="baseline of the paper's tables",
    cost="closed form",
    place=10,
)
