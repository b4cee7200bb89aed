"""LoRA by PEFT. Importing this needs peft."""

from __future__ import annotations

import math

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from pruning.adapters import ModelAdapter
from pruning.tuning.training.trainable import Trainable

NAME = "tune"
_PER_RANK = 2
"""What an adapter's product is multiplied with, times its rank: LoRA's alpha."""


def low_rank(model: nn.Module, adapter: ModelAdapter, rank: int, seed: int) -> Trainable:
    """Adapters of ``rank`` beside every linear layer of the blocks of ``model``. The first of the
    two matrices is sampled with ``seed``, the second is zero: at first nothing is changed."""
    layers = _layers(model, adapter)
    transposed = any(isinstance(model.get_submodule(path), Conv1D) for path in layers)
    config = LoraConfig(
        r=rank,
        lora_alpha=_PER_RANK * rank,
        target_modules=layers,
        fan_in_fan_out=transposed,
        init_lora_weights=False,
    )
    inject_adapter_in_model(config, model, NAME)
    # not by PEFT, which takes the process's random numbers, shared with other threads
    generator = torch.Generator().manual_seed(seed)
    parameters = {}
    for path in layers:
        layer = model.get_submodule(path)
        first, second = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
        bound = 1.0 / math.sqrt(first.shape[1])  # nn.Linear's own
        first.data = torch.empty(first.shape).uniform_(-bound, bound, generator=generator).to(first)
        second.data.zero_()
        parameters |= {f"{path}.first": first, f"{path}.second": second}
    return Trainable(parameters, lambda: _merged(model, layers))


def _layers(model: nn.Module, adapter: ModelAdapter) -> list[str]:
    """Paths of the linear layers of all blocks."""
    inside = set(adapter.blocks(model).modules())
    return [
        path
        for path, module in model.named_modules()
        if module in inside and isinstance(module, nn.Linear | Conv1D)
    ]


@torch.no_grad()
def _merged(model: nn.Module, layers: list[str]) -> dict[str, torch.Tensor]:
    """The weight of each layer with its adapter's product added. PEFT's own merge would add it in
    place, to a weight that the dense model may share."""
    weights = {}
    for path in layers:
        layer = model.get_submodule(path)
        assert isinstance(layer, LoraLayer)
        weights[f"{path}.weight"] = layer.get_base_layer().weight + layer.get_delta_weight(NAME)
    return weights
