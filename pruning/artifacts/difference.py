"""What tells two models apart: tensor by tensor, and in what their blocks give for a text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any, Literal

from pruning.utils.csv_text import as_csv

Part = Literal["attention", "ffn", "other", "outside"]
"""Where a tensor is: in one of the two prunable modules, elsewhere in a block, outside blocks."""

PARTS: dict[Part, str] = {
    "attention": "attention",
    "ffn": "FFN",
    "other": "norms and others",
    "outside": "outside blocks",
}


@dataclass(frozen=True)
class TensorDifference:
    """One tensor, by its name in the model. A shape is None where that model has no such tensor.

    ``elements``: how many the first and the second have, zeros that pad a model left out.
    ``compared``: those that both have, matched by the plans; ``squared_error`` and
    ``squared_size``: sums over these of (second - first)² and of first²."""

    name: str
    block: int | None
    part: Part
    first_shape: tuple[int, ...] | None
    second_shape: tuple[int, ...] | None
    elements: tuple[int, int]
    compared: int = 0
    squared_error: float = 0.0
    squared_size: float = 0.0

    @property
    def kept(self) -> float | None:
        """Elements of the second over those of the first; None where one has no such tensor."""
        return self.elements[1] / self.elements[0] if all(self.elements) else None

    @property
    def change(self) -> float | None:
        """Norm of what changed over the norm of what was there; None where nothing is compared."""
        return relative(self.squared_error, self.squared_size) if self.compared else None


@dataclass(frozen=True)
class BlockOutput:
    """The residual streams [n, s, d] behind one block: ``error`` is the mean over tokens of
    ‖second - first‖ / ‖first‖, ``cosine`` the mean over tokens of their cosine."""

    error: float
    cosine: float


@dataclass(frozen=True)
class Outputs:
    """What both models give for the same ``tokens``. ``divergence``: mean Kullback-Leibler
    divergence of the second's next-token distribution from the first's, in nats; ``agreement``:
    share of the tokens where both rank the same token first."""

    text: str
    tokens: int
    blocks: tuple[BlockOutput, ...]
    divergence: float
    agreement: float

    def protocol(self) -> str:
        return (
            f"{self.tokens:,} tokens of {self.text}; errors and cosines of the residual stream are "
            "means over tokens."
        )


@dataclass(frozen=True)
class BlockDifference:
    """One block in short. ``heads``, ``kv_heads`` and ``channels``: (first, second); ``kept``:
    elements of the second over those of the first; changes as in :class:`TensorDifference`."""

    block: int
    heads: tuple[int, int]
    kv_heads: tuple[int, int]
    channels: tuple[int, int]
    kept: float
    attention_change: float | None
    ffn_change: float | None


@dataclass(frozen=True)
class Difference:
    """``matching`` says how rows and columns of the two models were matched; ``remarks``: what
    could not be compared, and why. ``outputs``: None where no text was read."""

    first: str
    second: str
    matching: str
    blocks: tuple[BlockDifference, ...]
    tensors: tuple[TensorDifference, ...]
    outputs: Outputs | None = None
    remarks: tuple[str, ...] = ()

    @property
    def kept(self) -> float:
        """Parameters of the second over those of the first."""
        return kept_of(self.tensors)

    @property
    def change(self) -> float | None:
        """Relative change of everything that both have."""
        return change_of(self.tensors)

    def headline(self) -> str:
        """``82.0% of the parameters, what both have changed by 12.1%, ...`` for people."""
        parts = [f"{self.kept:.1%} of the parameters"]
        if self.change is not None:
            parts.append(f"weights that both have changed by {self.change:.2%}")
        if self.outputs is not None:
            parts.append(
                f"divergence {self.outputs.divergence:.3f} nats per token, the same first choice "
                f"for {self.outputs.agreement:.0%} of the tokens"
            )
        return "; ".join(parts)

    def block_rows(self) -> list[dict[str, Any]]:
        """One flat row per block, for tables."""
        outputs: Sequence[BlockOutput | None] = (
            self.outputs.blocks if self.outputs else [None] * len(self.blocks)
        )
        return [
            {
                "block": block.block,
                "heads": "{} → {}".format(*block.heads),
                "channels": "{} → {}".format(*block.channels),
                "kept": block.kept,
                "attention change": block.attention_change,
                "FFN change": block.ffn_change,
                "output error": output and output.error,
                "output cosine": output and output.cosine,
            }
            for block, output in zip(self.blocks, outputs, strict=True)
        ]

    def tensor_rows(self) -> list[dict[str, Any]]:
        """One flat row per tensor, for tables."""
        return [
            {
                "block": tensor.block,
                "part": PARTS[tensor.part],
                "tensor": tensor.name,
                "first": shape_words(tensor.first_shape),
                "second": shape_words(tensor.second_shape),
                "kept": tensor.kept,
                "compared": tensor.compared,
                "change": tensor.change,
            }
            for tensor in self.tensors
        ]

    def to_csv(self) -> str:
        """:meth:`tensor_rows` with a header."""
        rows = self.tensor_rows()
        return as_csv(rows, list(rows[0]))

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        tensors = [{**asdict(tensor), "change": tensor.change} for tensor in self.tensors]
        return {"kept": self.kept, "change": self.change, **asdict(self), "tensors": tensors}

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=1, allow_nan=False)


def change_of(tensors: Iterable[TensorDifference]) -> float | None:
    """Relative change of several tensors taken together; None where nothing is compared."""
    compared = [tensor for tensor in tensors if tensor.compared]
    if not compared:
        return None
    return relative(
        sum(tensor.squared_error for tensor in compared),
        sum(tensor.squared_size for tensor in compared),
    )


def kept_of(tensors: Sequence[TensorDifference]) -> float:
    """Elements of the second model over those of the first, in several tensors together."""
    first, second = (sum(tensor.elements[side] for tensor in tensors) for side in (0, 1))
    return second / first


def relative(squared_error: float, squared_size: float) -> float | None:
    """Norm of a change over the norm of what was there; None for a change of nothing but zeros."""
    if squared_size == 0.0:
        return None if squared_error else 0.0
    return sqrt(squared_error / squared_size)


def shape_words(shape: tuple[int, ...] | None) -> str:
    """``576 × 1,536``; a dash where there is no tensor."""
    return "–" if shape is None else " × ".join(f"{size:,}" for size in shape) or "1"
