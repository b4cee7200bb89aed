"""What one streaming pass learns about a model: small, serialisable, enough to plan with.

Statistics of a module are float32 vectors by name (lengths in brackets; ``units`` heads or
channels, ``groups`` key/value heads, ``w`` = ``unit_width``):

``input_mean, input_second_moment, input_variance`` [units·w]: of the input of ``out_proj``.
``level2_sq, level2_abs`` [units·w]: ``‖B_:j‖²`` and ``‖B_:j‖₁`` of the columns of ``out_proj``.
``P_second_moment`` [rows of P]: ``E[(A_j x)²]`` of a part of ``in_proj`` without its bias.
``P_sq, P_abs`` [rows of P]: its row norms. P is query, key, value; or up and, if gated, gate.
In a mixture of experts units and rows are those of one expert after the other, and means are over
the tokens routed to that expert; ``expert_tokens`` [experts] counts them.

Only after a gradient pass (:mod:`pruning.measure.gradient_pass`), from fewer windows of s tokens
each; the loss is the negative log-likelihood in nats:

``taylor_vector, taylor_element1, taylor_element2`` [units·w]: Taylor terms of LLM-Pruner, summed
over a channel's rows of ``in_proj`` (key/value rows shared equally in a group) and its column of
``out_proj``.
``fisher_unit`` [units·w]: mean over tokens of the squared first-order effect of a unit on the
summed loss, ``(Σ_j ∂L/∂h_tj · h_tj)²``; each of the unit's w channels holds an equal share.
``fisher_output`` [1]: mean over tokens of ``‖g_t‖²``, ``g_t`` the gradient of the summed loss by
what the module adds to the residual stream. Both means are over the s - 1 tokens of a window
that predict one; the last has no gradient.

Only after the pass for loss curves (:mod:`pruning.measure.loss_curves`): nats per token that it
costs to keep only the best units of the module and refit ``out_proj``. ``expected_loss``: FFN
[CURVE_POINTS + 1], keeping ``k / CURVE_POINTS`` of the channels; attention [units + 1], keeping k
heads of any group. With grouped queries also ``query_expected_loss`` [units/groups + 1], k heads
of each group, and ``kv_group_expected_loss`` [groups + 1], k whole groups.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import FiniteFloat, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from pruning.artifacts.shapes import KINDS, ModelShape, ModuleKind
from pruning.artifacts.stored import Matrix, Stored, Vector
from pruning.utils.errors import SourceError, one_line
from pruning.utils.files import unpacked, write_bytes

MEASUREMENT_VERSION = 2
LOG_BASE = "e"
CURVE_POINTS = 8
ADVICE = "measure the model again"


@dataclass(frozen=True)
class ModuleMeasurement:
    """Named statistics of one depth-2 module; see the module docstring for names and lengths."""

    statistics: Mapping[str, Vector]

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """In files there are the statistics alone."""
        statistics = handler.generate_schema(dict[str, Vector])
        return core_schema.no_info_after_validator_function(
            cls,
            statistics,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda module: module.statistics, return_schema=statistics
            ),
        )


@dataclass(frozen=True)
class ActivationSummary:
    """Magnitudes of one activation tensor over all calibration tokens and channels.

    ``quantiles[k]`` is the ``levels[k]`` quantile of ``|x|``; ``top_channels`` are the channels
    with the largest mean ``|x|`` and ``top_values`` that mean; ``maximum`` is ``max |x|``.
    """

    mean: FiniteFloat
    mean_absolute: FiniteFloat
    rms: FiniteFloat
    maximum: FiniteFloat
    levels: tuple[FiniteFloat, ...]
    quantiles: tuple[FiniteFloat, ...]
    top_channels: tuple[int, ...]
    top_values: tuple[FiniteFloat, ...]


@dataclass(frozen=True)
class BlockMeasurement:
    """One block. ``divergence`` [heads, heads]: mean Jensen-Shannon divergence in nats.

    ``activations`` by place: ``residual`` (block input), ``attention`` (output of ``W_O``),
    ``ffn`` (input of ``out_proj``, the FFN intermediate).
    """

    divergence: Matrix
    attention: ModuleMeasurement
    ffn: ModuleMeasurement
    activations: Mapping[str, ActivationSummary]

    def module(self, kind: ModuleKind) -> ModuleMeasurement:
        return self.attention if kind == "attention" else self.ffn

    def with_statistics(
        self, kind: ModuleKind, added: Mapping[str, np.ndarray]
    ) -> BlockMeasurement:
        """A block whose module has the vectors ``added`` as well, as read-only float32."""
        statistics = dict(self.module(kind).statistics)
        for name, values in added.items():
            statistics[name] = np.array(values, dtype=np.float32)
            statistics[name].setflags(write=False)
        module = ModuleMeasurement(statistics)
        return replace(self, attention=module) if kind == "attention" else replace(self, ffn=module)


@dataclass(frozen=True)
class Measurement:
    """A whole measured model: what was measured, on what, and the result per block."""

    model: str
    revision: str | None
    dtype: str
    corpus: str
    corpus_fingerprint: str
    samples: int
    seq_len: int
    seed: int
    seconds: FiniteFloat
    shape: ModelShape
    blocks: tuple[BlockMeasurement, ...]

    def to_json(self) -> str:
        """JSON text; float32 statistics are written in the shortest form that reads back equal."""
        return json.dumps(_STORED.plain(self), separators=(",", ":"), allow_nan=False)

    def write(self, path: Path) -> None:
        """Write :meth:`to_json` to ``path`` (gzipped if it ends in .gz), whole or not at all."""
        data = self.to_json().encode()
        # mtime=0: the same measurement gives the same file
        write_bytes(path, gzip.compress(data, mtime=0) if Path(path).suffix == ".gz" else data)

    @classmethod
    def from_json(cls, text: str | bytes, origin: str = "The measurement") -> Measurement:
        """Read :meth:`to_json`; raises SourceError with one line when it is not one."""
        measurement = _STORED.read(text, origin)
        wrong = next(_misfits(measurement), None)
        if wrong is not None:
            raise SourceError(f"{origin} does not fit its own shape ({wrong}); {ADVICE}.")
        return measurement

    @classmethod
    def read(cls, path: Path) -> Measurement:
        """Read a file; raises SourceError."""
        try:
            text = unpacked(Path(path).read_bytes())
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise SourceError(
                f"The measurement {path} cannot be read: {one_line(error)}."
            ) from None
        return cls.from_json(text, f"The measurement {path}")


_STORED = Stored(
    Measurement,
    wrong="is not a whole measurement file",
    advice=ADVICE,
    refusal=SourceError,
    header={"version": MEASUREMENT_VERSION, "log_base": LOG_BASE},
)

_PER_INPUT = ("input_mean", "input_second_moment", "input_variance", "level2_sq", "level2_abs")
"""Statistics of which a module has one value per input channel of ``out_proj``."""


def _misfits(measurement: Measurement) -> Iterator[str]:
    """What has another length than the shape of the model says."""
    blocks, shapes = measurement.blocks, measurement.shape.blocks
    if len(blocks) != len(shapes):
        yield f"{len(blocks)} blocks of {len(shapes)}"
        return
    for index, (block, shape) in enumerate(zip(blocks, shapes, strict=True)):
        if block.divergence.shape != (shape.attention.units,) * 2:
            yield f"the divergence of block {index} is not one value per pair of heads"
        for kind in KINDS:
            inputs = shape.module(kind).units * shape.module(kind).unit_width
            for name, values in block.module(kind).statistics.items():
                if name in _PER_INPUT and len(values) != inputs:
                    yield f"{name} of block {index} {kind} has {len(values)} values of {inputs}"
