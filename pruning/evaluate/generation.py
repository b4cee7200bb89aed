"""Greedy generation."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import TextStreamer

from pruning.adapters import adapter_for
from pruning.artifacts.comparison import Generation
from pruning.artifacts.events import CancelCheck, never, stop_if
from pruning.data.windows import check_tokens
from pruning.utils.errors import SourceError, UsageError
from pruning.utils.memory import device_guard


@torch.inference_mode()
def generate(
    model: nn.Module,
    tokenizer: Any,
    prompt: str,
    *,
    max_new_tokens: int = 64,
    on_text: Callable[[str], None] | None = None,
    should_cancel: CancelCheck = never,
) -> Generation:
    """Continue ``prompt`` greedily; raises UsageError for an empty prompt or no tokens, SourceError
    without a tokenizer, or for a token that the model does not know.

    ``on_text`` gets each further piece of text as soon as it is sure (a token may hold only part
    of a character). Raises Cancelled between two tokens, and OutOfMemory.
    """
    if not prompt.strip():
        raise UsageError("The prompt is empty; type some text.")
    if max_new_tokens < 1:
        raise UsageError("At least one new token must be asked for.")
    if tokenizer is None:
        raise SourceError(
            "The model has no tokenizer, so it cannot read a prompt; put the tokenizer's files "
            "into the model's folder."
        )
    started = time.perf_counter()
    inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
    check_tokens("The prompt", inputs["input_ids"], tokenizer, model)
    length = inputs["input_ids"].shape[1]
    limit = adapter_for(model.config).max_positions(model.config)
    if length + max_new_tokens > limit:
        raise UsageError(
            f"The prompt of {length} tokens and {max_new_tokens} new ones exceed the model's "
            f"{limit} positions; shorten one of them."
        )
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    with device_guard(model.device, "use a shorter prompt or fewer new tokens"):
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            do_sample=False,
            max_new_tokens=max_new_tokens,
            pad_token_id=pad,
            streamer=_Listener(tokenizer, on_text or _ignore, should_cancel),
        )
    new = output[0, length:]
    return Generation(
        text=tokenizer.decode(new, skip_special_tokens=True),
        new_tokens=len(new),
        seconds=round(time.perf_counter() - started, 3),
    )


class _Listener(TextStreamer):
    """Passes pieces of text on, and stops the generation when told to."""

    def __init__(
        self, tokenizer: Any, on_text: Callable[[str], None], should_cancel: CancelCheck
    ) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._on_text, self._should_cancel = on_text, should_cancel

    def put(self, value: torch.Tensor) -> None:
        stop_if(self._should_cancel)
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self._on_text(text)


def _ignore(_: str) -> None:
    """The default ``on_text``."""
