"""The paper's own method."""

from pruning.presets.base import PRESETS

PRESETS.add(
    "paper",
    {
        "heads": {"score": "second_moment", "drop": "first"},
        "ffn": {"score": "second_moment"},
        "recovery": {"method": "reconstruct", "target": "dense", "copies": 0},
    },
    title="Paper",
    summary="Second moments (the product of both branches in a gated FFN), the same share "
    "everywhere, and reconstruction before each cut. The paper recovers on 1,024 windows.",
    source="Li, Dong, Lei, CPAL 2025",
)
