"""A good pruned model in little time."""

from pruning.presets.base import PRESETS

PRESETS.add(
    "fast",
    {
        "heads": {"score": "flap", "policy": "kv_group"},
        "ffn": {"score": "flap"},
        "allocation": "adaptive",
        "recovery": {"method": "refit", "copies": 0, "compute": "auto"},
    },
    title="Fast",
    summary="What goes by FLAP's ranking over the whole model, and a refit on the calibration text "
    "alone.",
    source="Headroom; ranking of An et al., AAAI 2024",
)
