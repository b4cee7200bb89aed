"""Sizes of a model and of its prunable modules, and what they cost.

Everything here is arithmetic on integers: a plan can be priced without the model or torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

ModuleKind = Literal["attention", "ffn"]
KINDS: tuple[ModuleKind, ...] = ("attention", "ffn")
BYTES_PER_ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class ModuleShape:
    """One depth-2 module (method section 1), in units that are cut whole.

    ``units`` are heads or FFN channels; ``groups`` are key/value heads (0 for an FFN);
    ``unit_width`` is how many level-2 input channels one unit owns (``head_dim``, or 1).
    ``*_weights`` count matrix elements, ``*_biases`` the rest.
    ``fixed``: the sentence that says why no unit can go; empty when units can. ``ungroups``: every
    query head can get its own copy of its key/value head.

    ``experts``: how many experts the units belong to, as many to each and one expert after the
    other; each token is worked on by ``active`` of them, and each keeps a multiple of ``step``.
    ``whole``: the sentence that says what else of such a block stays as it is.
    """

    kind: ModuleKind
    units: int
    groups: int
    unit_width: int
    unit_weights: int
    unit_biases: int
    group_weights: int
    group_biases: int
    fixed_biases: int
    fixed: str = ""
    ungroups: bool = False
    experts: int = 1
    active: int = 1
    step: int = 1
    whole: str = ""

    @property
    def units_per_expert(self) -> int:
        """Channels of one expert; all of them in a module that is no mixture."""
        return self.units // self.experts

    @property
    def units_per_group(self) -> int:
        """Query heads that share one key/value head (1 for an FFN)."""
        return self.units // self.groups if self.groups else 1

    def weights(self, units: int, groups: int) -> int:
        """Matrix elements left with ``units`` and ``groups`` kept."""
        return units * self.unit_weights + groups * self.group_weights

    def multiply_adds(self, units: int, groups: int) -> int:
        """Multiply-adds per token left with ``units`` and ``groups`` kept."""
        return self.weights(units // self.experts * self.active, groups)

    def parameters(self, units: int, groups: int, added_biases: int = 0) -> int:
        """Parameters left with ``units`` and ``groups`` kept."""
        biases = units * self.unit_biases + groups * self.group_biases + self.fixed_biases
        return self.weights(units, groups) + biases + added_biases


@dataclass(frozen=True)
class BlockShape:
    """The two modules of one block and the parameters outside them (norms, a router), of which
    ``other_weights`` are multiplied with every token."""

    attention: ModuleShape
    ffn: ModuleShape
    other_parameters: int
    other_weights: int = 0

    def module(self, kind: ModuleKind) -> ModuleShape:
        return self.attention if kind == "attention" else self.ffn


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a whole model. ``head_weights`` are the multiply-adds outside the blocks: those
    of the output layer, and of projections next to the embedding where a family has them."""

    architecture: str
    family: str
    hidden_size: int
    vocab_size: int
    max_positions: int
    blocks: tuple[BlockShape, ...]
    other_parameters: int
    head_weights: int
    dtype: str

    @property
    def bytes_per_element(self) -> int:
        return BYTES_PER_ELEMENT[self.dtype]

    @property
    def fixed(self) -> dict[ModuleKind, str]:
        """The kinds of module that lose nothing in some block, and the sentence that says why."""
        found = {(kind, block.module(kind).fixed) for block in self.blocks for kind in KINDS}
        return {kind: reason for kind, reason in sorted(found) if reason}

    @property
    def whole(self) -> tuple[str, ...]:
        """Sentences that say what else of the blocks cannot lose units."""
        return tuple(sorted({block.ffn.whole for block in self.blocks} - {""}))


@dataclass(frozen=True)
class Widths:
    """What one block keeps. ``added_*`` say that recovery gave the level-2 layer a new bias."""

    heads: int
    kv_heads: int
    channels: int
    added_attention_bias: bool = False
    added_ffn_bias: bool = False


@dataclass(frozen=True)
class Footprint:
    """Price of a model: ``flops_per_token`` counts 2 per multiply-add of the matrix products
    (output layer included) plus attention over ``context`` cached positions."""

    parameters: int
    block_parameters: int
    bytes: int
    flops_per_token: int
    context: int


def full_widths(shape: ModelShape) -> tuple[Widths, ...]:
    """The widths of the unpruned model."""
    return tuple(
        Widths(block.attention.units, block.attention.groups, block.ffn.units)
        for block in shape.blocks
    )


def footprint(shape: ModelShape, widths: Iterable[Widths], context: int) -> Footprint:
    """Count parameters, bytes and FLOPs per token of a model with the given block widths."""
    block_parameters = 0
    multiply_adds = shape.head_weights
    for block, width in zip(shape.blocks, widths, strict=True):
        attention, ffn = block.attention, block.ffn
        block_parameters += (
            attention.parameters(
                width.heads, width.kv_heads, shape.hidden_size * width.added_attention_bias
            )
            + ffn.parameters(width.channels, 0, shape.hidden_size * width.added_ffn_bias)
            + block.other_parameters
        )
        multiply_adds += attention.multiply_adds(width.heads, width.kv_heads)
        multiply_adds += ffn.multiply_adds(width.channels, 0) + block.other_weights
        # scores and weighted values: one multiply-add per head channel and position, twice
        multiply_adds += 2 * width.heads * attention.unit_width * context
    parameters = block_parameters + shape.other_parameters
    return Footprint(
        parameters=parameters,
        block_parameters=block_parameters,
        bytes=parameters * shape.bytes_per_element,
        flops_per_token=2 * multiply_adds,
        context=context,
    )
