"""What one streaming pass learns about a model: small, serialisable, enough to plan with.

Statistics of a module are float32 vectors by name (lengths in brackets; ``units`` heads or
channels, ``groups`` key/value heads, ``w`` = ``unit_width``):

``input_mean, input_second_moment, input_variance`` [units·w]: of the level-2 input.
``level2_sq, level2_abs`` [units·w]: ``‖B_:j‖²`` and ``‖B_:j‖₁`` of the level-2 columns.
``P_second_moment`` [rows of P]: ``E[(A_j x)²]`` of a level-1 projection without its bias.
``P_sq, P_abs`` [rows of P]: its row norms. P is query, key, value; or up and, if gated, gate.
In a mixture of experts units and rows are those of one expert after the other, and means are over
the tokens routed to that expert; ``expert_tokens`` [experts] counts them.

Only after a gradient pass (:mod:`pruning.measure.gradient_pass`), from fewer windows of s tokens
each; the loss is the negative log-likelihood in nats:

``taylor_vector, taylor_element1, taylor_element2`` [units·w]: Taylor terms of LLM-Pruner, summed
over a channel's level-1 rows (key/value rows shared equally in a group) and its level-2 column.
``fisher_unit`` [units·w]: mean over tokens of the squared first-order effect of a unit on the
summed loss, ``(Σ_j ∂L/∂h_tj · h_tj)²``; each of the unit's w channels holds an equal share.
``fisher_output`` [1]: mean over tokens of ``‖g_t‖²``, ``g_t`` the gradient of the summed loss by
what the module adds to the residual stream. Both means are over the s - 1 tokens of a window
that predict one; the last has no gradient.

Only after a pass for expected losses (:mod:`pruning.measure.loss_curves`): nats per token that it
costs to keep only the best units of the module and refit level 2. ``expected_loss``: FFN
[CURVE_POINTS + 1], keeping ``k / CURVE_POINTS`` of the channels; attention [units + 1], keeping k
heads of any group. With grouped queries also ``query_expected_loss`` [units/groups + 1], k heads
of each group, and ``kv_group_expected_loss`` [groups + 1], k whole groups.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pruning.artifacts.shapes import ModelShape, ModuleKind, shape_from_plain
from pruning.utils.errors import SourceError
from pruning.utils.files import write_bytes

MEASUREMENT_VERSION = 2
LOG_BASE = "e"
CURVE_POINTS = 8


@dataclass(frozen=True)
class ModuleMeasurement:
    """Named statistics of one depth-2 module; see the module docstring for names and lengths."""

    statistics: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ActivationSummary:
    """Magnitudes of one activation tensor over all calibration tokens and channels.

    ``quantiles[k]`` is the ``levels[k]`` quantile of ``|x|``; ``top_channels`` are the channels
    with the largest mean ``|x|`` and ``top_values`` that mean; ``maximum`` is ``max |x|``.
    """

    mean: float
    mean_absolute: float
    rms: float
    maximum: float
    levels: tuple[float, ...]
    quantiles: tuple[float, ...]
    top_channels: tuple[int, ...]
    top_values: tuple[float, ...]


@dataclass(frozen=True)
class BlockMeasurement:
    """One block. ``divergence`` [heads, heads]: mean Jensen-Shannon divergence in nats.

    ``activations`` by place: ``residual`` (block input), ``attention`` (output of ``W_O``),
    ``ffn`` (input of the level-2 layer, the FFN intermediate).
    """

    divergence: np.ndarray
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
        return replace(self, **{kind: ModuleMeasurement(statistics)})


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
    shape: ModelShape
    blocks: tuple[BlockMeasurement, ...]
    seconds: float

    def to_json(self) -> str:
        """JSON text; float32 statistics are written in the shortest form that reads back equal."""
        data = {
            "version": MEASUREMENT_VERSION,
            "log_base": LOG_BASE,
            **{name: getattr(self, name) for name in _PLAIN},
            "shape": asdict(self.shape),
            "blocks": [_block_to_plain(block) for block in self.blocks],
        }
        return json.dumps(data, separators=(",", ":"), allow_nan=False)

    def write(self, path: Path) -> None:
        """Write :meth:`to_json` to ``path`` (gzipped if it ends in .gz), whole or not at all."""
        data = self.to_json().encode()
        # mtime=0: the same measurement gives the same file
        write_bytes(path, gzip.compress(data, mtime=0) if Path(path).suffix == ".gz" else data)

    @classmethod
    def from_json(cls, text: str, origin: str = "The measurement") -> Measurement:
        """Read :meth:`to_json`; raises SourceError with one line when it is not one."""
        try:
            data = json.loads(text)
            if data.get("version") != MEASUREMENT_VERSION:
                raise SourceError(
                    f"{origin} has version {data.get('version')!r}, this Headroom reads "
                    f"{MEASUREMENT_VERSION}; measure the model again."
                )
            return cls(
                **{name: data[name] for name in _PLAIN},
                shape=shape_from_plain(data["shape"]),
                blocks=tuple(_block_from_plain(block) for block in data["blocks"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceError(
                f"{origin} is not a whole measurement file ({error}); measure the model again."
            ) from None

    @classmethod
    def read(cls, path: Path) -> Measurement:
        """Read a file; raises SourceError."""
        try:
            data = Path(path).read_bytes()
            text = (gzip.decompress(data) if Path(path).suffix == ".gz" else data).decode()
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise SourceError(f"The measurement {path} cannot be read: {error}.") from None
        return cls.from_json(text, f"The measurement {path}")


_PLAIN = (
    "model",
    "revision",
    "dtype",
    "corpus",
    "corpus_fingerprint",
    "samples",
    "seq_len",
    "seed",
    "seconds",
)


def _floats(array: np.ndarray) -> list[Any]:
    """Nested lists of the shortest decimals that read back to the same float32."""
    text = np.asarray(array, np.float32).astype(str)
    return text.astype(np.float64).tolist()


def _array(values: list[Any]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float32)
    if not np.isfinite(array).all():
        raise ValueError("it contains values that are not finite")
    array.setflags(write=False)
    return array


def _block_to_plain(block: BlockMeasurement) -> dict[str, Any]:
    return {
        "divergence": _floats(block.divergence),
        **{
            kind: {name: _floats(v) for name, v in block.module(kind).statistics.items()}
            for kind in ("attention", "ffn")
        },
        "activations": {name: asdict(summary) for name, summary in block.activations.items()},
    }


def _block_from_plain(data: dict[str, Any]) -> BlockMeasurement:
    activations = {
        name: ActivationSummary(
            **{key: tuple(v) if isinstance(v, list) else v for key, v in summary.items()}
        )
        for name, summary in data["activations"].items()
    }
    modules = {
        kind: ModuleMeasurement({name: _array(v) for name, v in data[kind].items()})
        for kind in ("attention", "ffn")
    }
    return BlockMeasurement(
        divergence=_array(data["divergence"]), activations=activations, **modules
    )
