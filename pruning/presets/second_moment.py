"""The exact second moment and nothing else."""

from pruning.presets.base import PRESETS

PRESETS.add(
    "second_moment",
    {
        "heads": {"score": "second_moment_exact"},
        "ffn": {"score": "second_moment_exact"},
        "recovery": {"method": "none"},
    },
    title="Second moment, no recovery",
    summary="The weakest units by exact second moment go, the same share everywhere.",
    source="Li, Dong, Lei, CPAL 2025, section 3, in its exact form",
)
