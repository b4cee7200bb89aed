"""The tuning section of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pruning.artifacts import fields


class TuneRule(fields.Strict):
    """Training after the cut, for comparison and for those who can afford it; off by default.

    The pruned model is brought closer to the dense one: the loss is the Kullback-Leibler
    divergence of its next-token probabilities from the dense model's, in nats per token, over the
    windows that the recovery saw.
    """

    method: fields.TuningName = fields.setting("none", "Tuning", "tuning", registry="tunings")
    """Training after the cut: an end-to-end method, which no preset includes. It takes a few times
    as long as everything before it."""
    epochs: int = fields.setting(1, "Epochs", "training", ge=1, le=1000)
    """How often each window of the text is seen."""
    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0.0, le=1.0)] = fields.setting(
        "auto",
        "Learning rate",
        "training",
        auto="Choose the learning rate automatically",
        start=1e-3,
        step=1e-4,
        digits=6,
    )
    """Of AdamW, at its largest: it rises over the first steps and falls to nothing. Automatic: what
    suits the method."""
    batch: int = fields.setting(2, "Windows per step", "training", ge=1, le=4096)
    """More make steadier and fewer steps, and take more memory."""
    rank: int = fields.setting(16, "Rank of the adapters", "lora", ge=1, le=1024)
    """Of LoRA: each layer changes by a product of two matrices of this width."""
    keep_better: bool = fields.setting(True, "Never worse than untuned", "training")
    """Compares the tuned model with the untuned one on held-out text and keeps the better one."""
