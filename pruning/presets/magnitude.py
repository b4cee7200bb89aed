"""Magnitude pruning."""

from pruning.presets.base import PRESETS

for _name in ("l1", "l2"):
    PRESETS.add(
        _name,
        {"heads": {"score": _name}, "ffn": {"score": _name}, "recovery": {"method": "none"}},
        title=f"Magnitude, {_name.upper()}",
        summary="The units with the smallest weights go, the same share everywhere; no data.",
        source="baseline of the paper's tables",
    )
