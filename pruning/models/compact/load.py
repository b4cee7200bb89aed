"""Load a compact checkpoint: build the dense skeleton without memory, reshape it, fill it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.overrides import TorchFunctionMode

from pruning.adapters import adapter_for
from pruning.adapters.base import ModelAdapter
from pruning.models.compact.config_key import KEY, from_config, plain_config
from pruning.models.compact.modeling_headroom import reshape
from pruning.utils.errors import SourceError, Unsupported, described, one_line

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def load_compact(
    files: list[str], config: Any, dtype: Any, device_map: Mapping[str, str]
) -> nn.Module:
    """The pruned model in ``files``; ``dtype`` is a torch dtype or ``auto`` (as stored). Weights
    go straight to the devices of accelerate's ``device_map`` (empty: they stay in CPU memory).

    Raises SourceError when a file is missing or damaged.
    """
    folder = Path(files[0]).parent
    # float32: buffers that are computed stay as exact as from_pretrained's
    model = pruned_skeleton(config, torch.float32, str(folder))
    # not buffers: rotary frequencies stay float32
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    weights = {
        name: tensor.to(_device(name, device_map), None if dtype == "auto" else dtype)
        if name in parameters
        else tensor
        for name, tensor in _stored(files)
    }
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    except RuntimeError as error:
        line = (str(error).splitlines()[1:] or [str(error)])[0].strip().rstrip(".")
        raise SourceError(f"{folder} does not fit its config: {line}; save it again.") from None
    tie(model, missing)
    model.config.dtype = model.dtype
    everything = model.state_dict(keep_vars=True)  # buffers that are stored count as well
    given = {id(p) for name, p in everything.items() if name not in missing}
    # a tied weight is stored once, under the other name
    absent = [name for name, p in everything.items() if id(p) not in given]
    if absent or unexpected:
        name = (absent or unexpected)[0]
        what = "lacks" if absent else "has an unknown"
        raise SourceError(f"{folder} {what} weight {name!r}; save the model again.")
    take_generation_config(model, str(folder), None)
    return model


def _device(name: str, device_map: Mapping[str, str]) -> str:
    """Where a weight goes: the longest path that it lies below decides."""
    while name and name not in device_map:
        name = name.rpartition(".")[0]
    return device_map.get(name, "cpu")


def take_generation_config(model: Any, place: str, commit: str | None) -> None:
    """Give ``model`` the generation config in ``place``, where there is one; raises SourceError
    when it is damaged."""
    from transformers import GenerationConfig
    from transformers.utils.hub import cached_file

    name = "generation_config.json"
    absent = {"_raise_exceptions_for_missing_entries": False}
    file = cached_file(place, name, revision=commit, **absent)
    if file is None:
        return
    try:
        # no code is in it: unlike models and tokenizers it takes no trust_remote_code
        model.generation_config = GenerationConfig.from_pretrained(Path(file).parent)
    except (OSError, ValueError):
        raise SourceError(f"{file} is damaged; save or copy the model again.") from None


_FILLED = (torch.ones, torch.zeros, torch.full, torch.arange)
_LARGEST_BUFFER = 2**28
_LONGEST_SIDE = 2**24
_MOST_BLOCKS = 4096


class _EmptyOnMeta(TorchFunctionMode):
    """Puts what ``torch.empty`` makes (weights) on the meta device, in this thread only.

    Buffers, which are computed and not stored, stay real, so one of absurd size is refused (raises
    ValueError) before it takes the machine's memory; so is a matrix whose rows could not even be
    counted. accelerate's ``init_empty_weights`` patches ``nn.Module`` for the whole process and
    would spoil a prune in another thread.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
            made = func(*args, **kwargs)
            if max(made.shape, default=0) > _LONGEST_SIDE:
                raise ValueError(
                    f"its config asks for a matrix of {' x '.join(map(str, made.shape))}"
                )
            return made
        if func in _FILLED:
            size = func(*args, **{**kwargs, "device": "meta"}).numel()
            if size > _LARGEST_BUFFER:
                raise ValueError(f"its config asks for a buffer of {size} numbers")
        return func(*args, **kwargs)


def skeleton(config: Any, dtype: torch.dtype) -> nn.Module:
    """The dense model with its weight matrices on the meta device, tied as the config says. Raises
    Unsupported for a config of which there is no model."""
    from transformers import AutoModelForCausalLM

    try:
        blocks = config.num_hidden_layers
        if not 1 <= blocks <= _MOST_BLOCKS:
            raise ValueError(f"its config asks for {blocks} blocks")
        with _EmptyOnMeta():
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        model.tie_weights()
        return model
    except MemoryError:
        raise
    except Exception as error:  # whatever the authors of a model's class did not think of
        reason = one_line(error, 140) if type(error) is ValueError else described(error, 140)
        raise Unsupported(f"This model cannot be built here: {reason}; mend config.json.") from None


def pruned_skeleton(config: Any, dtype: torch.dtype, origin: str) -> nn.Module:
    """The skeleton with the shapes that ``config`` records under our key.

    The config it carries keeps the key. Raises SourceError when the record is damaged.
    """
    record = from_config(getattr(config, KEY), config.num_hidden_layers, origin)
    model = skeleton(plain_config(config), dtype)
    try:
        reshape(model, **vars(record.layout))
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise SourceError(f"{origin} has a damaged config.json ({error}); save it again.") from None
    _check(model, adapter_for(config), record, origin)
    setattr(model.config, KEY, getattr(config, KEY))
    return model


def _check(model: nn.Module, adapter: ModelAdapter, record: Any, origin: str) -> None:
    """Raise SourceError when shapes and widths of the record contradict each other."""
    for index, (block, width) in enumerate(zip(adapter.blocks(model), record.widths, strict=True)):
        attention, ffn = adapter.attention(block), adapter.ffn(block)
        if (attention.units, attention.groups, ffn.units) != (
            width.heads,
            width.kv_heads,
            width.channels,
        ):
            raise SourceError(
                f"{origin} has a damaged config.json (the layers of block {index} do not have "
                "its widths); save it again."
            )


def tie(model: Any, missing: Iterable[str]) -> None:
    """Tie what the config says, to the one of the two that the files hold (``missing``: what they
    do not); two that are different stay apart, as when transformers loads them."""
    model.tie_weights(missing_keys=set(missing), recompute_mapping=False)


def _stored(files: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of safetensors files, one after the other; raises SourceError in one line."""
    for path in files:
        try:
            with safe_open(path, framework="pt") as opened:
                for name in opened.keys():
                    yield name, opened.get_tensor(name)
        except FileNotFoundError:
            raise SourceError(f"{path} is missing; save or copy the model again.") from None
        except (SafetensorError, OSError) as error:
            raise SourceError(f"{path} is damaged ({error}); save or copy it again.") from None
