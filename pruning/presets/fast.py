"""A good pruned model in little time."""

from pruning.presets.base import PRESETS

PRESETS.add(
    "fast",
    {
        "heads": {"score": "second_moment_exact"},
        "ffn": {"score": "second_moment_exact"},
        "recovery": {"method": "refit", "copies": 0, "compute": "auto"},
    },
    title="Fast",
    summary="The same share everywhere and a refit on the calibration text alone.",
    source="Headroom",
)
