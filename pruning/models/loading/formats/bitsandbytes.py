"""bitsandbytes in 8 and 4 bits: every matrix is dequantised by the library's own functions.

transformers' ``model.dequantize()`` is not asked. It leaves the matrices of models with ``Conv1D``
layers (GPT-2) transposed, as they are stored, so that what is saved of it is another model; and on
the CPU, it takes wrong scales for 4 bits where rows are not whole blocks.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping
from typing import Any

from pruning.models.loading.files import COMPUTED
from pruning.models.loading.formats.base import FULL, Checkpoint, Format, from_weights

_STATE = ".quant_state.bitsandbytes__"
_STATISTICS = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
_ROW_MAJOR = 0


def _read(checkpoint: Checkpoint) -> tuple[Any, dict[str, Any]]:
    return from_weights(checkpoint, _weights(checkpoint))


def _weights(checkpoint: Checkpoint) -> dict[str, Any]:
    """Ordinary weights by the names of the files; raises Unsupported for a tensor that none of
    them is made of."""
    from transformers.pytorch_utils import Conv1D

    from pruning.models.compact.load import skeleton

    known, weights, used = checkpoint.known, {}, set()
    model: Any = skeleton(checkpoint.config, checkpoint.dtype)
    modules = dict(model.named_modules())
    for name in known:
        parts = _parts(name, known)
        if not parts:
            continue
        value = (_four_bits if f"{name}.absmax" in parts else _eight_bits)(checkpoint, name, parts)
        path = name.removesuffix(".weight")
        module = modules.get(path) or modules.get(f"{model.base_model_prefix}.{path}")
        if isinstance(module, Conv1D):  # the library knows linear layers only
            value = value.T.contiguous()
        weights[name] = value.to(checkpoint.dtype)
        used |= {name, *parts}
    for name in known.keys() - used:
        if COMPUTED.search(name):
            continue
        if known[name].dtype not in FULL or name.endswith((*_STATISTICS, ".SCB")):
            raise checkpoint.odd_tensor(name, "does not belong to a quantised matrix")
        weights[name] = checkpoint.tensor(name).to(checkpoint.dtype)
    return weights


def _parts(name: str, known: Mapping[str, Any]) -> list[str]:
    """What else is stored of the quantised matrix ``name``; none, where it is none."""
    if not name.endswith(".weight"):
        return []
    path = name.removesuffix("weight")
    named = [f"{name}{_STATE}{kind}" for kind in ("nf4", "fp4")]
    named += [f"{name}{end}" for end in _STATISTICS] + [f"{path}SCB", f"{path}weight_format"]
    return [part for part in named if part in known]


def _eight_bits(checkpoint: Checkpoint, name: str, parts: list[str]) -> Any:
    """Rows of int8, each a 127th of its largest value: LLM.int8()."""
    path = name.removesuffix("weight")
    stored, scales = checkpoint.known[name], checkpoint.known.get(f"{path}SCB")
    if len(stored.shape) != 2 or stored.dtype != "I8":
        raise checkpoint.odd_tensor(name, f"is {stored.dtype} of shape {stored.shape}")
    if scales is None or (scales.dtype, scales.shape) != ("F32", stored.shape[:1]):
        raise checkpoint.odd_tensor(f"{path}SCB", "is not one float32 number for each row")
    order = f"{path}weight_format"
    if order in parts and checkpoint.tensor(order).item() != _ROW_MAJOR:
        raise checkpoint.odd_tensor(name, "is stored in the order of one kind of device")
    return _library().int8_vectorwise_dequant(
        checkpoint.tensor(name), checkpoint.tensor(f"{path}SCB")
    )


def _four_bits(checkpoint: Checkpoint, name: str, parts: list[str]) -> Any:
    """Blocks of indices into a map of 16 numbers, times the largest value of the block, which may
    itself be quantised."""
    import torch

    library = _library()
    given = {part.removeprefix(f"{name}."): checkpoint.tensor(part) for part in parts}
    try:
        state = library.QuantState.from_dict(given, "cpu")
        sizes, bits = tuple(state.shape), library.get_4bit_type(state.quant_type, "cpu")
        whole = _is_whole(state)
    except (ValueError, AssertionError, KeyError, TypeError, AttributeError, ArithmeticError):
        raise checkpoint.odd_tensor(name, "has statistics that cannot be read") from None
    weight = checkpoint.tensor(name)
    if not whole or weight.nbytes != math.ceil(math.prod(sizes) / 2):
        raise checkpoint.odd_tensor(name, f"has not the statistics of a matrix of {sizes}")
    if not state.code.allclose(bits):
        raise checkpoint.odd_tensor(name, "has a map of numbers of its own")
    # blocks go on from row to row, which the CPU's kernel takes into account in a single row only
    state.shape = torch.Size([math.prod(sizes)])
    return library.dequantize_4bit(weight, state).reshape(sizes)


def _is_whole(state: Any) -> bool:
    """Whether there is a largest value for each block, and a whole map: the library's functions are
    C and read as far as the sizes say."""
    import torch

    blocks, inner = math.ceil(math.prod(state.shape) / state.blocksize), state.state2
    wanted = [(state.absmax, blocks, torch.float32), (state.code, 16, torch.float32)]
    if inner is not None:
        wanted = [
            (state.absmax, blocks, torch.uint8),
            (state.code, 16, torch.float32),
            (inner.absmax, math.ceil(blocks / inner.blocksize), torch.float32),
            (inner.code, 256, torch.float32),
        ]
    return all((part.numel(), part.dtype) == (size, dtype) for part, size, dtype in wanted)


def _library() -> Any:
    """The library's functions. Where the package ``kernels`` is installed, importing them would
    fetch compiled code from the hub, for products that are not made here: it is hidden meanwhile.
    """
    name, log = "kernels", logging.getLogger("bitsandbytes.backends.cpu.ops")
    there, level = sys.modules.get(name), log.level
    hidden: dict[str, Any] = {name: None}  # so an import of it fails
    sys.modules.update(hidden)
    log.setLevel(logging.CRITICAL)
    try:
        from bitsandbytes import functional
    finally:
        log.setLevel(level)
        del sys.modules[name]
        sys.modules.update({name: there} if there else {})
    return functional


BITSANDBYTES = Format(_read, "bitsandbytes", "0.46.1")
