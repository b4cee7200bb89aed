"""Number formats: the one in which the passes of recovery multiply, and every step to float64.

A float32 model is fitted to its own outputs; these passes only look at what it does, and the
equations that they fill are summed and solved as always. On hardware with bfloat16 matrix units
they are quicker in that format.

Sums and solves are in float64. Apple's ``mps`` has none: what must be float64 goes to the CPU
there. No other module of the engine names torch's float64, so none can forget that.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def autocast_dtype_of(compute: str, model: PreTrainedModel) -> torch.dtype | None:
    """What ``recovery.compute`` comes to for ``model``; None: its own format.

    ``auto`` is bfloat16 for float32 weights on a device that multiplies it natively. Weights that
    are not float32 keep their format.
    """
    if model.dtype != torch.float32 or compute == "model":
        return None
    if compute == "bfloat16" or _has_bfloat16_units(model.device):
        return torch.bfloat16
    return None


def autocast_name(compute: str, model: PreTrainedModel) -> str:
    """Name of the format that :func:`autocast_dtype_of` finds."""
    return str(autocast_dtype_of(compute, model) or model.dtype).removeprefix("torch.")


def autocast_in(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[Any]:
    """Run a float32 model with its matrix products in ``dtype``; None: as it is. Norms, sums and
    the residual stream stay float32."""
    if dtype is None:
        return nullcontext()
    return torch.autocast(device.type, dtype)


def float64_device(device: torch.device) -> torch.device:
    """Where the float64 numbers of ``device`` are: there, or on the CPU where it has none."""
    return torch.device("cpu") if device.type == "mps" else device


def to_float64(tensor: Tensor) -> Tensor:
    """``tensor`` in float64, on :func:`float64_device` of its device. In two steps: ``mps`` casts
    before it copies."""
    return tensor.to(float64_device(tensor.device)).double()


def sum_float64(tensor: Tensor, dim: int | None = None) -> Tensor:
    """The sum of ``tensor``, over ``dim`` or all of it, taken in float64."""
    return tensor.to(float64_device(tensor.device)).sum(dim, dtype=torch.float64)


def zeros_float64(*size: int, device: torch.device | None = None) -> Tensor:
    """Zeros for sums on ``device`` (None: the CPU), on its :func:`float64_device`."""
    where = float64_device(device or torch.device("cpu"))
    return torch.zeros(size, dtype=torch.float64, device=where)


def sum_dtype(device: torch.device) -> torch.dtype:
    """float64 on the CPU; float32 on accelerators, where float64 is slow or absent."""
    return torch.float64 if device.type == "cpu" else torch.float32


def _has_bfloat16_units(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    units = any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16"))
    return device.type == "cpu" and units
