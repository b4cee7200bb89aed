"""compressed-tensors, which llm-compressor writes: every matrix is decompressed by the library's
own class for its format.

transformers' quantizer is not asked: it takes the scheme of one group for all matrices. Activations
are computed as they are, so scales that would quantise them are not used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from pruning.models.loading.files import COMPUTED, Stored
from pruning.models.loading.formats.base import FULL, Checkpoint, Format, from_weights

PARTS = {
    "pack-quantized": {"weight_packed", "weight_scale", "weight_shape"},
    "int-quantized": {"weight", "weight_scale"},
    "float-quantized": {"weight", "weight_scale"},
    "naive-quantized": {"weight", "weight_scale"},
    "nvfp4-pack-quantized": {"weight_packed", "weight_scale", "weight_global_scale"},
}
"""Formats, and the tensors that stand for a matrix in each, beside zero points."""

_PART = re.compile(r"(?P<path>.+)\.(?P<part>weight(_\w+)?)")
_OF_ACTIVATIONS = re.compile(
    r"\.((input|output)_(scale|zero_point|global_scale)|[qkv]_(scale|zero_point))$"
)
_WORD = 32
"""Bits into which small integers are packed."""


def _read(checkpoint: Checkpoint) -> tuple[Any, dict[str, Any]]:
    return from_weights(checkpoint, _weights(checkpoint))


def _weights(checkpoint: Checkpoint) -> dict[str, Any]:
    """Ordinary weights by the names of the files."""
    from compressed_tensors.compressors import BaseCompressor

    schemes, weights = _Schemes(checkpoint), {}
    modules: dict[str, set[str]] = {}
    for name, stored in checkpoint.known.items():
        match = _PART.fullmatch(name)
        if match is not None:
            modules.setdefault(match["path"], set()).add(match["part"])
        elif not COMPUTED.search(name) and not _OF_ACTIVATIONS.search(name):
            if stored.dtype not in FULL:
                raise checkpoint.odd_tensor(name, f"is stored as {stored.dtype}")
            weights[name] = checkpoint.tensor(name).to(checkpoint.dtype)
    for path, parts in modules.items():
        given = {part: checkpoint.tensor(f"{path}.{part}") for part in parts}
        if parts == {"weight"} and checkpoint.known[f"{path}.weight"].dtype in FULL:
            value = given["weight"]
        else:
            form, scheme = schemes.of(path)
            if scheme.weights.symmetric and _is_zero(given.get("weight_zero_point")):
                del given["weight_zero_point"]  # early releases stored it all the same
            _check(checkpoint, path, given, form, scheme.weights)
            value = BaseCompressor.get_value_from_registry(form).decompress(given, scheme)["weight"]
        weights[f"{path}.weight"] = value.to(checkpoint.dtype)
    return weights


def _is_zero(value: Any) -> bool:
    return value is not None and not value.float().any()


class _Schemes:
    """The config's groups, each the scheme of the modules that it names."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        from compressed_tensors.quantization import QuantizationConfig

        from pruning.models.compact.load import skeleton

        self._checkpoint = checkpoint
        settings = checkpoint.settings
        for key in ("sparsity_config", "moe_sparsity_config", "transform_config"):
            said = settings.get(key) or {}
            if said.get("config_groups", said) and said.get("format") != "dense":
                raise checkpoint.odd(f"its {key} would not be computed with")
        self._config = QuantizationConfig.model_validate(settings)
        self._modules = dict(skeleton(checkpoint.config, checkpoint.dtype).named_modules())

    def of(self, path: str) -> tuple[str, Any]:
        """The format and the scheme of the module ``path``; what the model has none for (an
        expert, which transformers puts together with others) is a linear layer."""
        from compressed_tensors.utils.match import is_match
        from torch import nn

        module = self._modules.get(path) or nn.Linear(1, 1, device="meta")
        found = [
            scheme
            for scheme in self._config.config_groups.values()
            if is_match(path, module, scheme.targets, self._config.ignore or ())
        ]
        if len(found) != 1 or found[0].weights is None:
            raise self._checkpoint.odd_tensor(path, "is not in exactly one group of its config")
        said = found[0].format or self._config.format
        form = str(getattr(said, "value", said))
        if form not in PARTS:
            raise self._checkpoint.odd_tensor(path, f"has the format {form[:40]!r}")
        return form, found[0]


def _check(
    checkpoint: Checkpoint, path: str, given: Mapping[str, Any], form: str, args: Any
) -> None:
    """Raise Unsupported where parts are missing, too many, or of another dtype or shape than the
    scheme says: scales of a wrong shape may still be multiplied with."""
    wanted = PARTS[form] | (set() if args.symmetric else {"weight_zero_point"})
    if given.keys() != wanted:
        name = sorted(given.keys() ^ wanted)[0]
        raise checkpoint.odd_tensor(
            f"{path}.{name}", "is missing" if name in wanted else "has no place in its format"
        )
    # releases of the library pack other widths in two ways
    if args.num_bits not in (8, 4, 2):
        raise checkpoint.odd_tensor(path, f"is in {args.num_bits} bits")
    stored = {part: checkpoint.known[f"{path}.{part}"] for part in given}
    expected = _expected(form, args, _shape(stored, given, form))
    for part, tensor in stored.items():
        dtypes, sizes = expected[part]
        fits = math.prod(tensor.shape) == 1 if sizes is None else tensor.shape == sizes
        if tensor.dtype not in dtypes or not fits:
            raise checkpoint.odd_tensor(
                f"{path}.{part}", f"is {tensor.dtype} of shape {tensor.shape}, against its config"
            )


def _expected(
    form: str, args: Any, shape: tuple[int, ...]
) -> dict[str, tuple[tuple[str, ...], tuple[int, ...] | None]]:
    """Dtypes and shape (None: one number) of what stands for a matrix of ``shape``."""
    rows, columns = shape
    scales, numbers = _scales(args, shape), {"int": "I8", "float": "F8_E4M3"}[args.type]
    common = {
        "weight": ((numbers,), shape),
        "weight_scale": (FULL, scales),
        "weight_zero_point": (("I8",), scales),
    }
    if form == "nvfp4-pack-quantized":
        return {
            "weight_packed": (("U8",), (rows, columns // 2)),
            "weight_scale": (("F8_E4M3",), scales),
            "weight_global_scale": (FULL, None),
        }
    if form != "pack-quantized":
        return common
    if scales is not None:
        down = (math.ceil(rows * args.num_bits / _WORD), scales[1])
        common["weight_zero_point"] = (("I32",), down)
    words = (rows, math.ceil(columns * args.num_bits / _WORD))
    return common | {"weight_packed": (("I32",), words), "weight_shape": (("I64", "I32"), (2,))}


def _shape(stored: Mapping[str, Stored], given: Mapping[str, Any], form: str) -> tuple[int, ...]:
    """Of the matrix."""
    if form == "pack-quantized":
        return tuple(int(size) for size in given["weight_shape"].tolist())
    if form == "nvfp4-pack-quantized":
        rows, columns = stored["weight_packed"].shape
        return rows, 2 * columns
    return stored["weight"].shape


def _scales(args: Any, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape of the scales of a matrix; None: there is one number."""
    rows, columns = shape
    match str(getattr(args.strategy, "value", args.strategy)):
        case "channel":
            return rows, 1
        case "group" | "tensor_group":
            return rows, math.ceil(columns / args.group_size)
        case "block":
            high, wide = args.block_structure
            return math.ceil(rows / high), math.ceil(columns / wide)
    return None


COMPRESSED_TENSORS = Format(_read, "compressed-tensors", "0.15")
