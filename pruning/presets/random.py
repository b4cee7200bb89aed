"""Random pruning."""

from pruning.presets.base import PRESETS

PRESETS.add(
    "random",
    {"heads": {"score": "random"}, "ffn": {"score": "random"}, "recovery": {"method": "none"}},
    title="Random",
    summary="Units are drawn by lot, the same share everywhere.",
    source="baseline of the paper's tables",
)
