"""A pretended accelerator: real CPU data that says it is on another device.

What an engine does wrong on a card shows here without one: tensors of two devices in one
operation, float64 where the device has none (Apple's ``mps``), needless waits for the device.
Numbers are those of the CPU, so results can be compared with a run that pretends nothing.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

CPU = torch.device("cpu")
KINDS = ("cuda", "mps")

_PLACES = ("device", "is_cuda", "is_cpu", "is_mps")
_WAITS = (
    "item",
    "tolist",
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
    "cpu",
    "numpy",
    "nonzero",
    "masked_select",
    "unique",
    "equal",
    "allclose",
    "__contains__",
    "bincount",
    "argwhere",
)
_ACROSS = ("copy_", "to", "cpu", "cuda", "type_as", "detach", "__deepcopy__", "set_", "data")
"""Operations that may see two devices."""
_INDEXED = ("__getitem__", "__setitem__", "index_put_", "index_put")
_ELEMENTWISE_NEVER = ("cat", "stack", "matmul", "linear", "index_select", "gather", "embedding")
"""Operations that refuse even a number on the CPU."""


class WrongDevice(RuntimeError):
    """What the device would refuse."""


class VirtualTensor(Tensor):
    """A CPU tensor that says it is on ``place``."""

    place: torch.device

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return _handle(func, args, kwargs or {})

    def __hash__(self):
        return id(self)

    def __reduce_ex__(self, protocol):
        raise WrongDevice("a tensor on a device cannot be pickled")


class _Mode(TorchFunctionMode):
    """Serves factories and everything else that has no virtual tensor among its arguments."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return _handle(func, args, kwargs or {})


WAITS: Counter[str] = Counter()
"""How often each line of the engine waited for the device."""


def _name(func: Any) -> str:
    owner = getattr(func, "__self__", None)
    if getattr(func, "__name__", "") in ("__get__", "__set__") and hasattr(owner, "__name__"):
        return owner.__name__
    return getattr(func, "__name__", None) or resolve_name(func) or str(func)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


def _place(tensor: Tensor) -> torch.device:
    if isinstance(tensor, VirtualTensor):
        return tensor.place
    return tensor.device


def _as_device(value: Any) -> torch.device | None:
    if isinstance(value, torch.device):
        found = value
    elif isinstance(value, str) and value.split(":")[0] in (*KINDS, "cpu", "meta"):
        found = torch.device(value)
    else:
        return None
    return torch.device(found.type, found.index or 0) if found.type in KINDS else found


def _wanted(name: str, args: tuple, kwargs: dict) -> torch.device | None:
    """The device that a call asks for."""
    if name == "cpu":
        return CPU
    if name == "cuda":
        return torch.device("cuda", 0)
    if kwargs.get("device") is not None:
        return _as_device(kwargs["device"])
    if name in ("to", "type_as"):
        for value in (*args[1:], kwargs.get("other")):
            if isinstance(value, Tensor):
                return _place(value)
            if (found := _as_device(value)) is not None:
                return found
    return None


def _without_device(value: Any) -> Any:
    found = _as_device(value)
    return CPU if found is not None and found.type in KINDS else value


def _check(name: str, args: tuple, kwargs: dict) -> None:
    """Raise where CUDA would: tensors of two devices, but for what it allows."""
    if name in _ACROSS or name.startswith("__reduce"):
        return
    tensors = list(_tensors((args, kwargs)))
    if name in _INDEXED:
        base, index, *values = args
        home = _place(base)
        picks = list(_tensors(index))
        if home.type == "cpu" and any(_place(pick) != home for pick in picks):
            raise WrongDevice(f"{name}: indices on {_place(picks[0])} for a tensor on the CPU")
        if picks and any(v.dim() and _place(v) != home for v in _tensors(values)):
            raise WrongDevice(f"{name}: a value on another device than {home}")
        if any(p.dtype == torch.bool for p in picks):
            _wait(home)
        return
    places = {_place(t) for t in tensors if t.dim() or name in _ELEMENTWISE_NEVER}
    if any(_place(t).type in KINDS for t in tensors):
        places |= {_place(t) for t in tensors if _place(t).type in KINDS}
    if len(places - {torch.device("meta")}) > 1:
        raise WrongDevice(f"{name}: tensors on {' and '.join(sorted(map(str, places)))}")


def _wait(place: torch.device) -> None:
    if place.type not in KINDS:
        return
    frame = sys._getframe(1)
    while frame and "/pruning/" not in frame.f_code.co_filename.replace("tests/pruning", ""):
        frame = frame.f_back
    if frame:
        file = frame.f_code.co_filename.rpartition("/pruning/")[2]
        WAITS[f"{file}:{frame.f_lineno}"] += 1


def _handle(func: Any, args: tuple, kwargs: dict) -> Any:
    with torch._C.DisableTorchFunction():  # what is asked here is asked of the real tensors
        return _handled(func, args, kwargs)


def _handled(func: Any, args: tuple, kwargs: dict) -> Any:
    name = _name(func)
    if name in _PLACES and len(args) == 1 and isinstance(args[0], Tensor):
        place = _place(args[0])
        return place if name == "device" else place.type == name.removeprefix("is_")
    target = _wanted(name, args, kwargs)
    homes = [_place(t) for t in _tensors((args, kwargs)) if _place(t).type in KINDS]
    if not homes and (target is None or target.type not in KINDS):
        return func(*args, **kwargs)
    _check(name, args, kwargs)
    places = name == "where" and len(args) + len(kwargs) == 1
    if homes and (name in _WAITS or places or (name == "to" and target == CPU)):
        _wait(homes[0])
    if name == "numpy":
        raise WrongDevice("can't convert a tensor on a device to numpy; use .cpu() first")
    place = target or homes[0]
    args = tuple(_without_device(value) for value in args)
    kwargs = {key: _without_device(value) for key, value in kwargs.items()}
    moves = name in ("to", "cpu", "cuda", "type_as") and _place(args[0]) != place
    result = _real_call(func, name, args, kwargs)
    if moves and homes:
        # what leaves a device is cast there: to float64 takes two steps
        _no_float64(result, homes[0])
    if moves and isinstance(result, Tensor) and result.data_ptr() == args[0].data_ptr():
        result = result.clone()
    return _wrapped(result, place)


def _real_call(func: Any, name: str, args: tuple, kwargs: dict) -> Any:
    if name == "cuda":
        return args[0]
    if name == "__deepcopy__":  # torch's own makes no tensor of a subclass
        return args[1].setdefault(id(args[0]), args[0].detach().clone())
    if name == "to" and isinstance(args[1] if len(args) > 1 else None, Tensor):
        return args[0].to(args[1].dtype)
    if name == "Generator":
        return func()
    if name == "histc":  # the CPU counts no integers
        return func(args[0].float(), *args[1:], **kwargs).to(args[0].dtype)
    return func(*args, **kwargs)


def _no_float64(tensor: Tensor, place: torch.device) -> None:
    if place.type == "mps" and tensor.dtype in (torch.float64, torch.complex128):
        raise WrongDevice("float64 on mps, which has none")


def _wrapped(value: Any, place: torch.device) -> Any:
    if isinstance(value, Tensor):
        if value.device.type == "meta":
            return value
        if place.type not in KINDS:
            return value.as_subclass(Tensor) if isinstance(value, VirtualTensor) else value
        _no_float64(value, place)
        if isinstance(value, VirtualTensor) and getattr(value, "place", place) == place:
            value.place = place
            return value
        made = value.as_subclass(VirtualTensor)
        made.place = place
        if isinstance(value, nn.Parameter):
            made._is_param = True
        return made
    if type(value) in (list, tuple):
        return type(value)(_wrapped(item, place) for item in value)
    if isinstance(value, tuple):  # a named tuple of torch
        return type(value)([_wrapped(item, place) for item in value])
    return value


def _apply(module: nn.Module, change: Any, recurse: bool = True) -> nn.Module:
    """``nn.Module._apply`` that hangs new tensors in, ties kept: data cannot be exchanged here."""
    known: dict[int, Tensor] = {}
    for child in module.modules():
        for slots in (child._parameters, child._buffers):
            for name, tensor in slots.items():
                if tensor is None:
                    continue
                if id(tensor) not in known:
                    new = change(tensor)
                    if new is not tensor and isinstance(tensor, nn.Parameter):
                        new = nn.Parameter(new, requires_grad=tensor.requires_grad)
                    known[id(tensor)] = new
                slots[name] = known[id(tensor)]
    return module


class _Event:
    """Marks a place in a device's work, which is done at once here."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Of whatever device."""

    def record(self, *_args: Any) -> None:
        """Nothing to mark."""

    wait = synchronize = record

    def query(self) -> bool:
        return True


@contextmanager
def virtual_device(kind: str, cards: int = 1) -> Iterator[Counter[str]]:
    """``kind`` is there, with so many cards; gives the waits by line of the engine."""
    patch = pytest.MonkeyPatch()
    patch.setattr(nn.Module, "_apply", _apply)
    room = (80 << 30, 80 << 30)
    if kind == "cuda":
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: cards)
        for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
            patch.setattr(torch.cuda, name, lambda *_: None)
        patch.setattr(torch.cuda, "mem_get_info", lambda *_: room)
        patch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 0))
        patch.setattr(torch.cuda, "max_memory_allocated", lambda *_: 1 << 20)
        patch.setattr(torch.cuda, "memory_reserved", lambda *_: 0)
        for name in ("memory_allocated", "current_device"):
            patch.setattr(torch.cuda, name, lambda *_: 0)
    else:
        patch.setattr(torch.backends.mps, "is_available", lambda: True)
        patch.setattr(torch.mps, "synchronize", lambda: None)
        patch.setattr(torch.mps, "empty_cache", lambda: None)
        patch.setattr(torch.mps, "recommended_max_memory", lambda: room[0])
        for name in ("current_allocated_memory", "driver_allocated_memory"):
            patch.setattr(torch.mps, name, lambda: 0)
    patch.setattr(torch, "Event", _Event)
    # a mode serves one thread: transformers reads weights in this one, and copies in threads of
    # their own are tested elsewhere
    patch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")
    # accelerate would make parameters of the pretended class, for hooks that the engine removes
    patch.setattr("transformers.modeling_utils.accelerate_dispatch", lambda *_: None)
    patch.setattr("pruning.models.execution.prefetch.Sender.serves", lambda *_: False)
    WAITS.clear()
    try:
        with _Mode():
            yield WAITS
    finally:
        patch.undo()
