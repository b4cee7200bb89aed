"""What tells the modules of a pruned model from those of the dense one, as plain data.

Every family is covered by the same comparison: shapes of parameters, and plain attributes such
as head counts. The record is enough to rebuild the pruned modules from the dense architecture.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from pruning.utils.errors import Unsupported

HEADS = "kept_heads"
"""Buffer of attention modules whose heads have positions' slopes of their own (ALiBi)."""

_PLAIN = (bool, int, float)


@dataclass(frozen=True)
class Layout:
    """``layers``: {module path: {parameter: shape or None}}; ``attributes``: {path: {name:
    value}}; ``heads``: {path: the dense model's number of each head that is left, where it
    matters}; ``configs``: {path: what differs in the module's own view of the config};
    ``absent``: paths of modules that went. Only what differs from the dense model."""

    layers: dict[str, dict[str, list[int] | None]]
    attributes: dict[str, dict[str, Any]]
    heads: dict[str, list[int]] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)


def layout(model: nn.Module, dense: nn.Module) -> Layout:
    """Compare ``model`` with ``dense`` (which may be on the meta device) module by module.

    Raises Unsupported when they differ in more than shapes and plain attributes.
    """
    before = dict(dense.named_modules())
    layers, attributes, heads, configs = {}, {}, {}, {}
    for path, module in model.named_modules():
        other = before.pop(path, None)
        if other is None or not isinstance(module, type(other)):
            raise Unsupported(f"The pruned model has another module at {path!r} than its config.")
        shapes = {
            name: shape for name, shape in _shapes(module).items() if shape != _shapes(other)[name]
        }
        if shapes:
            layers[path] = shapes
        if HEADS in module._buffers:
            heads[path] = module.get_buffer(HEADS).tolist()
        own = vars(module).get("config")
        if own is not None and not isinstance(own, PreTrainedConfig):
            configs[path] = _plain(own)
        now, was = _plain(module), _plain(other)
        changed = {name: value for name, value in now.items() if value != was.get(name)}
        if changed:
            attributes[path] = changed
    absent = [path for path in before if path.rpartition(".")[0] not in before]
    return Layout(layers, attributes, heads, configs, absent)


def _shapes(module: nn.Module) -> dict[str, list[int] | None]:
    return {
        name: None if parameter is None else list(parameter.shape)
        for name, parameter in module._parameters.items()
    }


def _plain(owner: Any) -> dict[str, Any]:
    """Public attributes that JSON can hold."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(owner).items()
        if not name.startswith("_") and name != "training" and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(item, _PLAIN) for item in value)
    return isinstance(value, _PLAIN)
