"""What a form of a saved model must do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from pruning.checkpoint.parts import Parts
from pruning.registry import Registry

SHARD = "5GB"
GgufType = Literal["f32", "f16", "q8_0"]
GGUF_TYPES: tuple[GgufType, ...] = ("f32", "f16", "q8_0")


@dataclass(frozen=True)
class FormOptions:
    """``gguf_type``: how the matrices of a GGUF file are stored."""

    gguf_type: GgufType = "f16"


class Form(ABC):
    """One way to write a pruned model. ``single_file`` is the suffix of forms that can also be
    written as one file without a folder."""

    single_file: str | None = None

    @abstractmethod
    def write(self, parts: Parts, place: Path, options: FormOptions) -> tuple[str, ...]:
        """Write weights, config and tokenizer into the folder ``place`` (or, for a form with
        ``single_file``, to a path of that suffix).

        Returns remarks for the card and the user. Raises Unsupported with the reason when the
        form cannot hold this model; nothing of what was written then stays.
        """

    @abstractmethod
    def loading(self, parts: Parts) -> str:
        """Markdown that says how to load it."""


FORMS: Registry[Form] = Registry("form")


def write_tokenizer(parts: Parts, place: Path) -> None:
    """Tokenizer and chat template, when the model has them."""
    if parts.loaded.tokenizer is not None:
        parts.loaded.tokenizer.save_pretrained(place)


@torch.no_grad()
def same_function(one: torch.nn.Module, other: torch.nn.Module, vocabulary: int) -> float:
    """Largest difference of the logits on a few tokens, relative to their largest value."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (1, 8), generator=generator)
    first, second = (
        model(input_ids=ids.to(model.device), use_cache=False).logits.float().cpu()
        for model in (one, other)
    )
    return ((first - second).abs().max() / first.abs().max().clamp_min(1e-9)).item()
