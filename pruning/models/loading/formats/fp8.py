"""FP8 in blocks or with one scale for each matrix (DeepSeek, Qwen3-FP8), which transformers itself
dequantises."""

from __future__ import annotations

import math
from typing import Any

from pruning.models.loading.files import COMPUTED
from pruning.models.loading.formats.base import FULL, Checkpoint, Format

SCALE = "_scale_inv"


def _check(checkpoint: Checkpoint) -> None:
    """Every FP8 weight has scales, one for each block of the config's size: transformers takes a
    weight without scales as it is, and the size of blocks from the number of scales."""
    known, odd = checkpoint.known, checkpoint.odd_tensor
    block = checkpoint.settings.get("weight_block_size", (128, 128))
    for name, stored in known.items():
        if name.endswith(SCALE) or COMPUTED.search(name):
            continue
        if stored.dtype in FULL:
            if f"{name}{SCALE}" in known:
                raise odd(name, "has scales but is not in FP8")
            continue
        if stored.dtype != "F8_E4M3":
            raise odd(name, f"is stored as {stored.dtype}")
        scale = known.get(f"{name}{SCALE}")
        if scale is None or scale.dtype not in FULL:
            raise odd(name, "has no scales that can be read")
        if block and len(stored.shape) == 2 and len(block) == 2:
            sizes = zip(stored.shape, block, strict=True)
            if any(size % of for size, of in sizes) or scale.shape != tuple(
                size // of for size, of in zip(stored.shape, block, strict=True)
            ):
                raise odd(name, f"is not in whole blocks of {block[0]} x {block[1]}")
        elif block or math.prod(scale.shape) != 1:
            raise odd(name, "has scales of another shape than its config says")


def _read(checkpoint: Checkpoint) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModelForCausalLM

    _check(checkpoint)
    config = checkpoint.config
    config.quantization_config = {**checkpoint.settings, "dequantize": True}
    return AutoModelForCausalLM.from_pretrained(
        checkpoint.place,
        revision=checkpoint.commit,
        config=config,
        dtype=checkpoint.dtype,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )


FP8 = Format(_read)
