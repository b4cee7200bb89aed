"""Gemma 3, text models: as Gemma 2, with a norm on every query and key head."""

from __future__ import annotations

from pruning.adapters.base import FAMILIES
from pruning.adapters.families.gemma2 import Gemma2Adapter


class Gemma3Adapter(Gemma2Adapter):
    """Each block gets the rotary angles of its own window as well as its mask."""

    model_types = ("gemma3_text",)
    kernel = None  # no soft cap: any will do


FAMILIES.add(
    "gemma3",
    Gemma3Adapter(),
    title="Gemma 3 (text)",
    summary="Gemma 3 text models (270M, 1B): as Gemma 2, queries and keys normalised per head.",
    source="transformers Gemma3ForCausalLM",
    place=60,
)
