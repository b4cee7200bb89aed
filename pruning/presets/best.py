"""The best pruned model that Headroom makes."""

from pruning.presets.base import PRESETS

PRESETS.add(
    "best",
    {
        "heads": {"score": "second_moment_exact", "policy": "auto"},
        "ffn": {"score": "second_moment_exact"},
        "allocation": "predicted",
        "recovery": {"method": "refit", "copies": "auto", "compute": "auto"},
    },
    title="Best quality",
    summary="Widths by expected loss, then a refit on the text and rewritten copies of it.",
    source="Headroom",
)
