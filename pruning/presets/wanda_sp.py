"""Wanda, made structured by the authors of FLAP."""

from pruning.presets.base import PRESETS

PRESETS.add(
    "wanda_sp",
    {"heads": {"score": "wanda_sp"}, "ffn": {"score": "wanda_sp"}, "recovery": {"method": "none"}},
    title="Wanda-sp",
    summary="Weight times input size, the same share everywhere, no recovery.",
    source="Sun et al., ICLR 2024; structured by An et al., AAAI 2024",
)
