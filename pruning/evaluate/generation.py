"""Greedy generation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pruning.adapters import adapter_for
from pruning.errors import SourceError, UsageError


@dataclass(frozen=True)
class Generation:
    """What the model wrote after the prompt."""

    text: str
    new_tokens: int
    seconds: float


@torch.inference_mode()
def generate(
    model: nn.Module, tokenizer: Any, prompt: str, *, max_new_tokens: int = 64
) -> Generation:
    """Continue ``prompt`` greedily; raises UsageError for an empty prompt or no tokens."""
    if not prompt.strip():
        raise UsageError("The prompt is empty; type some text.")
    if max_new_tokens < 1:
        raise UsageError("At least one new token must be asked for.")
    if tokenizer is None:
        raise SourceError("The model has no tokenizer, so it cannot read a prompt.")
    started = time.perf_counter()
    inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
    length = inputs["input_ids"].shape[1]
    limit = adapter_for(model.config).max_positions(model.config)
    if length + max_new_tokens > limit:
        raise UsageError(
            f"The prompt of {length} tokens and {max_new_tokens} new ones exceed the model's "
            f"{limit} positions; shorten one of them."
        )
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    output = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=pad,
    )
    new = output[0, length:]
    return Generation(
        text=tokenizer.decode(new, skip_special_tokens=True),
        new_tokens=len(new),
        seconds=round(time.perf_counter() - started, 3),
    )
