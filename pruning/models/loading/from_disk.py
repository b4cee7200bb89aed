"""Models with cpu offload, with disk offload, or with their blocks on all devices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from pruning.adapters import ModelAdapter
from pruning.models.compact.config_key import KEY, plain_config
from pruning.models.compact.load import pruned_skeleton, skeleton, take_generation_config, tie
from pruning.models.execution.offload import TensorRef, place_blocks
from pruning.models.loading.checks import check_finite, check_names, check_shape
from pruning.models.loading.files import (
    Stored,
    check_experts,
    check_full_precision,
    headers,
    weight_files,
)
from pruning.utils.errors import Unsupported


def load_on_disk(
    place: str,
    commit: str | None,
    config: Any,
    adapter: ModelAdapter,
    dtype: Any,
    devices: list[torch.device],
) -> nn.Module:
    """The model in ``place`` (a folder or hub id) with what lies outside its blocks on
    ``devices[0]``; blocks take ``devices`` in turn. ``dtype``: a torch dtype or ``auto``.

    Raises SourceError when a file is missing, Unsupported when the files hold the weights in
    another form than the model computes with.
    """
    known = headers(weight_files(place, commit))
    check_full_precision(place, known)
    check_experts(place, known)
    # before a skeleton is built, which changes the config's
    dtype = _dtype(config, known) if dtype == "auto" else dtype
    pruned = bool(getattr(config, KEY, None))
    if pruned:
        model = pruned_skeleton(config, torch.float32, place)
    else:
        # float32: buffers that are computed stay as exact as from_pretrained's
        model = skeleton(config, torch.float32)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    for block in adapter.blocks(model):
        _empty(block)
    stored, made = _matched(model, known, pruned)
    inside = {id(p) for p in adapter.blocks(model).parameters()}
    buffers = {id(b) for b in adapter.blocks(model).buffers()}  # small: they stay
    state = model.state_dict(keep_vars=True)
    _check(model, state, stored, made, known, place)
    outside = {}
    for name, source in stored.items():
        tensor = source.read(state[name].dtype)  # all are read once: what is broken says so now
        check_finite(place, name, tensor, known[source.name].dtype != "F16")
        if id(state[name]) not in inside:
            outside[name] = tensor if id(state[name]) in buffers else tensor.to(devices[0])
    model.load_state_dict(outside, strict=False, assign=True)
    tie(model, state.keys() - stored.keys())
    model.config.dtype = dtype
    take_generation_config(model, place, commit)
    away = {state[name]: source for name, source in stored.items() if id(state[name]) in inside}
    place_blocks(adapter.blocks(model), devices, away)
    return _outside_to(model, adapter, devices[0])


def _empty(block: nn.Module) -> None:
    """Put what the skeleton has real (norms, filled with ones) on the meta device too."""
    for module in block.modules():
        for name, given in module._parameters.items():
            if given is not None and given.device.type != "meta":
                empty = torch.empty_like(given, device="meta")
                module._parameters[name] = nn.Parameter(empty, requires_grad=False)


def placed(
    model: nn.Module, adapter: ModelAdapter, devices: list[torch.device], placement: str
) -> nn.Module:
    """A model in CPU memory, or already on its devices (see :func:`device_map`), as ``placement``
    says: moved as a whole, or its blocks offloaded, or put on ``devices`` in turn."""
    if placement == "whole":
        return model.to(devices[0])
    place_blocks(adapter.blocks(model), devices, stay=placement == "spread")
    return _outside_to(model, adapter, devices[0])


def device_map(
    config: Any, adapter: ModelAdapter, devices: list[torch.device], placement: str
) -> dict[str, str]:
    """accelerate's device map, by which weights go straight to where they stay: blocks to
    ``devices`` in turn or all to the first. Empty where they stay in CPU memory."""
    if placement == "whole":
        return {} if devices[0].type == "cpu" else {"": str(devices[0])}
    return spread_map(config, adapter, devices) if placement == "spread" else {}


def spread_map(config: Any, adapter: ModelAdapter, devices: list[torch.device]) -> dict[str, str]:
    """The device map that gives blocks to ``devices`` in turn, the rest to the first."""
    model = skeleton(plain_config(config), torch.float32)
    blocks = adapter.blocks(model)
    path = next(name for name, module in model.named_modules() if module is blocks)
    turns = {f"{path}.{n}": str(devices[n % len(devices)]) for n in range(len(blocks))}
    return {"": str(devices[0]), **turns}


def _outside_to(model: nn.Module, adapter: ModelAdapter, device: torch.device) -> nn.Module:
    """Move everything but the blocks."""
    inside = {id(t) for b in adapter.blocks(model) for t in (*b.parameters(), *b.buffers())}
    model._apply(lambda t: t if id(t) in inside else t.to(device))
    return model


def _dtype(config: Any, known: Mapping[str, Stored]) -> torch.dtype:
    if config.dtype is not None:
        return config.dtype
    name, stored = next(iter(known.items()))
    with safe_open(stored.file, framework="pt") as opened:
        return opened.get_tensor(name).dtype


def _matched(
    model: nn.Module, known: Mapping[str, Stored], pruned: bool
) -> tuple[dict[str, TensorRef], dict[str, str]]:
    """Name in the model -> where it is stored, and name in the files -> in the model of what would
    have to be converted. Names are matched as transformers does when it loads."""
    if pruned:  # saved under the live model's own names
        state = model.state_dict()
        return {name: TensorRef(t.file, name) for name, t in known.items() if name in state}, {}
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, rename_source_key

    steps = get_model_conversion_mapping(model)
    converters = [step for step in steps if isinstance(step, WeightConverter)]
    renamings = [step for step in steps if not isinstance(step, WeightConverter)]
    state, stored, made = model.state_dict(), {}, {}
    for name, tensor in known.items():
        target, converted = rename_source_key(
            name, renamings, converters, model.base_model_prefix, state
        )
        if converted is None and target in state:
            stored[target] = TensorRef(tensor.file, name)
        elif target in state:
            made[name] = target
    return stored, made


def _check(
    model: nn.Module,
    state: Mapping[str, Tensor],
    stored: Mapping[str, TensorRef],
    made: Mapping[str, str],
    known: Mapping[str, Stored],
    place: str,
) -> None:
    """Raise Unsupported when the files hold a weight in another form than the model, from which it
    can be ``made``, SourceError when they lack one, have one too many, or one of another shape."""
    given = {id(state[name]) for name in stored}
    # a tied weight is stored once
    missing = {name for name, tensor in state.items() if id(tensor) not in given}
    unexpected = known.keys() - {source.name for source in stored.values()} - made.keys()
    check_names(place, model, missing - set(made.values()), unexpected)
    for name in sorted(missing):
        raise Unsupported(
            f"{Path(place).name} does not store {name!r} as the model computes with it, so its "
            "blocks cannot be read from disk one by one; choose placement 'memory' or 'whole'."
        )
    for name, source in stored.items():
        check_shape(place, name, known[source.name].shape, state[name].shape)
