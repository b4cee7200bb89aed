"""How the matrices of a GGUF file can be stored."""

from __future__ import annotations

from typing import Literal

GgufType = Literal["f32", "f16", "q8_0"]
GGUF_TYPES: tuple[GgufType, ...] = ("f32", "f16", "q8_0")
