"""What a model will need, from its config alone, before its weights are read."""

from __future__ import annotations

from dataclasses import dataclass

from pruning.errors import UsageError
from pruning.shape import BYTES_PER_ELEMENT, KINDS, ModuleShape

_BATCH_TOKENS = 2048
_CALIBRATION_TOKENS = 32 * 128


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on ``device``: ``weight_bytes`` for the weights, ``working_bytes`` for measuring and
    pruning with 32 × 128 calibration tokens, against ``free_bytes`` now."""

    parameters: int
    weight_bytes: int
    working_bytes: int
    free_bytes: int
    device: str
    dtype: str

    @property
    def needed_bytes(self) -> int:
        return self.weight_bytes + self.working_bytes

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.free_bytes

    def sentence(self) -> str:
        """The arithmetic, and what would fit when this does not."""
        said = (
            f"{self.parameters / 1e6:,.0f} M parameters in {self.dtype} take "
            f"{_gib(self.weight_bytes)}, measuring and pruning about "
            f"{_gib(self.working_bytes)} more; {self.device} has {_gib(self.free_bytes)} free."
        )
        if self.fits:
            return said
        smaller = self.weight_bytes // BYTES_PER_ELEMENT[self.dtype] * 2 + self.working_bytes
        if self.dtype == "float32" and smaller <= self.free_bytes:
            return f"{said} That does not fit; bfloat16 would."
        return f"{said} That does not fit; choose a smaller model or another device."


def estimate(
    source: str, *, revision: str | None = None, dtype: str = "float32", device: str = "auto"
) -> MemoryEstimate:
    """Estimate from the config; parameters are counted on the meta device, so exactly.

    Raises what :func:`pruning.load` raises for a wrong source.
    """
    import torch
    from transformers import AutoConfig

    from pruning.adapters import adapter_for
    from pruning.checkpoint.load import pruned_skeleton, skeleton
    from pruning.checkpoint.widths import KEY
    from pruning.sources.open import DTYPES, guarded, locate, resolve_device

    if dtype not in DTYPES:
        raise UsageError(f"Unknown dtype {dtype!r}; choose one of: {', '.join(DTYPES)}.")
    place, commit = locate(source, revision)
    where = resolve_device(device)
    config = guarded(source, AutoConfig.from_pretrained, place, revision=commit)
    adapter = adapter_for(config)
    if dtype == "auto":
        dtype = str(config.dtype or torch.float32).removeprefix("torch.")
    if getattr(config, KEY, None):
        model = pruned_skeleton(config, getattr(torch, dtype), place)
    else:
        model = skeleton(config, getattr(torch, dtype))
    shape = adapter.model_shape(model)
    size = BYTES_PER_ELEMENT[dtype]
    parameters = sum(p.numel() for p in model.parameters())
    modules = [block.module(kind) for block in shape.blocks for kind in KINDS]
    # channels that one token goes through, and those of one set of equations
    inner = max(m.units_per_expert * m.active * m.unit_width for m in modules)
    fitted = max(m.experts * _equations(m, shape.hidden_size) for m in modules)
    largest = max(b.ffn.weights(b.ffn.units, 0) for b in shape.blocks)
    # what is left of the blocks after a cut, the three streams, two float64 equation sets with
    # their solves, and a batch of intermediates
    pruned = sum(p.numel() for p in adapter.blocks(model).parameters()) * size
    streams = 3 * _CALIBRATION_TOKENS * shape.hidden_size * size
    equations = 5 * 8 * fitted
    batch = _BATCH_TOKENS * (4 * inner * 4 + shape.vocab_size * 4)
    working = pruned + streams + equations + batch + largest * size
    return MemoryEstimate(parameters, parameters * size, working, free_bytes(where), where, dtype)


def _equations(module: ModuleShape, hidden_size: int) -> int:
    """Elements of the Gram matrix and the right-hand side of a module, or of one expert."""
    inner = module.units_per_expert * module.unit_width
    return inner * (inner + hidden_size)


def free_bytes(device: str) -> int:
    """Bytes that can still be taken on ``device``."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
