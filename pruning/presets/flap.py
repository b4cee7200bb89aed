"""FLAP as published."""

from pruning.presets.base import PRESETS

PRESETS.add(
    "flap",
    {
        "heads": {"score": "flap", "policy": "kv_group"},
        "ffn": {"score": "flap"},
        "allocation": "adaptive",
        "recovery": {"method": "bias", "intercept": "add", "rescore": False, "copies": 0},
    },
    title="FLAP",
    summary="Fluctuation of the inputs, ranked over the whole model, and bias compensation.",
    source="An et al., AAAI 2024 (WIFV, AL-AM)",
)
