"""What a model costs, in the columns of the field's tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pruning.artifacts.cell import Latency
from pruning.evaluate.speed import (
    peak_memory_bytes,
    reset_peak_memory,
    reset_process_peak,
    tokens_per_second,
)
from pruning.models.execution.blockwise import attention_implementation
from pruning.models.execution.offload import devices_of
from pruning.models.loading.loaded import LoadedModel

NEW_TOKENS, REPEATS = 8, 3
"""Of a latency: tokens that are decoded, and runs of which the best counts."""


@dataclass(frozen=True)
class Cost:
    """``macs_per_token``: multiply-adds of a whole forward pass over ``prompt_tokens`` tokens, by
    torch's counter, divided by them. Latencies at batch 1: ``prefill_ms`` of the prompt,
    ``decode_ms`` of each of ``new_tokens`` tokens behind it, the best of ``repeats`` runs.
    ``peak_memory_bytes`` while that was timed: the process's on the CPU, weights included."""

    parameters: int
    macs_per_token: int
    prefill_ms: float
    decode_ms: float
    peak_memory_bytes: int
    prompt_tokens: int
    new_tokens: int
    repeats: int
    device: str
    threads: int
    dtype: str

    def protocol(self) -> str:
        """The sentence that belongs beside the numbers."""
        return (
            f"MACs by torch's FLOP counter at {self.prompt_tokens} tokens; batch 1, a prompt of "
            f"{self.prompt_tokens} tokens and {self.new_tokens} new ones, best of {self.repeats}, "
            f"{self.dtype} on {self.device}, {self.threads} threads."
        )

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "protocol": self.protocol()}


def measured_cost(
    model: nn.Module, *, prompt_tokens: int = 128, new_tokens: int = 32, repeats: int = REPEATS
) -> Cost:
    """Count and time ``model`` on its device; raises what the model raises for prompts longer than
    its positions."""
    devices: Sequence[torch.device] = tuple(devices_of(model))
    macs = macs_per_token(model, prompt_tokens)
    reset_peak_memory(devices)
    reset_process_peak()
    speed = tokens_per_second(
        model, prompt_tokens=prompt_tokens, new_tokens=new_tokens, repeats=repeats
    )
    return Cost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs_per_token=macs,
        prefill_ms=round(1000 * prompt_tokens / speed.prefill, 2),
        decode_ms=round(1000 / speed.decode, 2),
        peak_memory_bytes=peak_memory_bytes(*devices),
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        repeats=repeats,
        device=str(model.device),
        threads=torch.get_num_threads(),
        dtype=str(model.dtype).removeprefix("torch."),
    )


def latency(loaded: LoadedModel, prompt_tokens: int) -> Latency | None:
    """Time ``loaded`` on its device, with as long a prompt as its positions allow; None where
    blocks wait elsewhere, so that moving them would be timed. Raises OutOfMemory."""
    if loaded.placement not in ("whole", "spread"):
        return None
    limit = loaded.adapter.max_positions(loaded.model.config)
    new_tokens = min(NEW_TOKENS, limit - 1)
    prompt = max(1, min(prompt_tokens, limit - new_tokens))
    speed = tokens_per_second(
        loaded.model, prompt_tokens=prompt, new_tokens=new_tokens, repeats=REPEATS
    )
    return Latency(
        prefill_ms=round(1000 * prompt / speed.prefill, 2),
        decode_ms=round(1000 / speed.decode, 2),
        prompt_tokens=prompt,
        new_tokens=new_tokens,
        repeats=REPEATS,
        threads=torch.get_num_threads(),
    )


@torch.no_grad()
def macs_per_token(model: nn.Module, tokens: int = 128) -> int:
    """Multiply-adds per token of a forward pass over ``tokens`` tokens, by torch's counter; those
    of the attention maps included, the rotary angles not.

    Attention and experts run in their plain form: the counter does not know the CPU's kernels.
    """
    ids = torch.zeros(1, tokens, dtype=torch.long, device=model.device)
    experts = getattr(model.config, "_experts_implementation", None)
    try:
        if experts is not None:
            model.config._experts_implementation = "eager"
        with attention_implementation(model, "eager"), FlopCounterMode(display=False) as counter:
            model(input_ids=ids, use_cache=False)
    finally:
        if experts is not None:
            model.config._experts_implementation = experts
    rotary = [n for name, n in counter.flop_counts.items() if name.endswith("rotary_emb")]
    angles = sum(sum(counts.values()) for counts in rotary)
    return (counter.get_total_flops() - angles) // (2 * tokens)
