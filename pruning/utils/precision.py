"""The number format in which the passes of recovery multiply.

A float32 model is fitted to its own outputs; these passes only look at what it does, and the
equations that they fill are summed and solved as always. On hardware with bfloat16 matrix units
they are quicker in that format.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

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


def _has_bfloat16_units(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(capabilities.get("amx_bf16"))
