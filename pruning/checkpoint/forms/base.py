"""What a form of a saved model must do. Listing the forms needs no torch.

Add one: a file in this folder with a subclass of :class:`Form` and a call of ``FORMS.add("name",
MyForm(), title=..., summary=..., source=...)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pruning import registries
from pruning.checkpoint.gguf.types import GgufType
from pruning.checkpoint.rewrite.legacy_config import add_legacy_keys
from pruning.utils.errors import UsageError
from pruning.utils.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from pruning.artifacts.recipe import Recipe
    from pruning.checkpoint.parts import Parts
    from pruning.models.loading.outline import Outline
    from pruning.planning.checks import Outlook

SHARD = "5GB"


@dataclass(frozen=True)
class FormOptions:
    """``gguf_type``: how the matrices of a GGUF file are stored; ``shard_size``: largest
    safetensors file, like ``5GB``; ``handoff``: a training script is written beside the model."""

    gguf_type: GgufType = "f16"
    shard_size: str = SHARD
    handoff: bool = False


class Form(ABC):
    """One way to write a pruned model. ``single_file`` is the suffix of forms that can also be
    written as one file without a folder. ``untrainable``: why no training script is written beside
    it (empty: one can be)."""

    single_file: str | None = None
    untrainable: str = ""

    @abstractmethod
    def write(self, parts: Parts, place: Path, options: FormOptions) -> tuple[str, ...]:
        """Write weights, config and tokenizer into the folder ``place`` (or, for a form with
        ``single_file``, to a path of that suffix).

        Returns remarks for the card and the user. Raises Unsupported with the reason when the
        form cannot hold this model; nothing of what was written then stays.
        """

    def check(self, outline: Outline, recipe: Recipe, outlook: Outlook) -> tuple[str, ...]:
        """What can be said before any work: raises Unsupported when the form cannot hold what
        ``recipe`` makes of the model; returns remarks on what cannot be known yet."""
        return ()

    @abstractmethod
    def loading(self, parts: Parts) -> str:
        """Markdown that says how to load it."""


FORMS: Registry[Form] = registries.FORMS


def check_handoff(form: str) -> None:
    """Raise UsageError for a form that cannot be trained elsewhere."""
    why = FORMS[form].untrainable
    if why:
        raise UsageError(
            f"No training script is written beside the form {form}: {why}; save as compact or "
            "uniform."
        )


def write_model(
    model: nn.Module, parts: Parts, place: Path, options: FormOptions, **more: bool
) -> None:
    """Weights, in the dtype that ``parts`` are saved in, in shards; config and generation config
    of ``model``; tokenizer and chat template when there are any. ``more`` goes to transformers'
    ``save_pretrained``; a model whose blocks are offloaded is written under its live names, one
    shard in memory at a time."""
    from pruning.checkpoint.rewrite.shards import write_shards
    from pruning.models.execution.offload import is_offloaded
    from pruning.surgery.cut import in_dtype

    blocks, dtype = parts.adapter.blocks(model), parts.loaded.file_dtype
    if is_offloaded(blocks[0]):
        write_shards(model, blocks, place, dtype)
    else:
        stored = in_dtype(model, dtype) if dtype else model
        stored.save_pretrained(place, max_shard_size=options.shard_size, **more)
    if parts.loaded.tokenizer is not None:
        parts.loaded.tokenizer.save_pretrained(place)
    add_legacy_keys(place)
