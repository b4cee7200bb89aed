"""What tells the modules of a pruned model from those of the dense one, as plain data.

Every family is covered by the same comparison: shapes of parameters, and plain attributes such
as head counts. The record is enough to rebuild the pruned modules from the dense architecture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from pruning.errors import Unsupported

_PLAIN = (bool, int, float)


@dataclass(frozen=True)
class Layout:
    """``layers``: {module path: {parameter: shape or None}}; ``attributes``: {path: {name:
    value}}; only what differs from the dense model."""

    layers: dict[str, dict[str, list[int] | None]]
    attributes: dict[str, dict[str, Any]]

    @property
    def is_empty(self) -> bool:
        return not self.layers and not self.attributes


def layout(model: nn.Module, dense: nn.Module) -> Layout:
    """Compare ``model`` with ``dense`` (which may be on the meta device) module by module.

    Raises Unsupported when they differ in more than shapes and plain attributes.
    """
    before = dict(dense.named_modules())
    layers, attributes = {}, {}
    for path, module in model.named_modules():
        other = before.pop(path, None)
        if other is None or type(other) is not type(module):
            raise Unsupported(f"The pruned model has another module at {path!r} than its config.")
        shapes = {
            name: shape for name, shape in _shapes(module).items() if shape != _shapes(other)[name]
        }
        if shapes:
            layers[path] = shapes
        now, was = _plain(module), _plain(other)
        changed = {name: value for name, value in now.items() if value != was.get(name)}
        if changed:
            attributes[path] = changed
    if before:
        raise Unsupported(f"The pruned model lacks the module {next(iter(before))!r}.")
    return Layout(layers, attributes)


def _shapes(module: nn.Module) -> dict[str, list[int] | None]:
    return {
        name: None if parameter is None else list(parameter.shape)
        for name, parameter in module._parameters.items()
    }


def _plain(module: nn.Module) -> dict[str, Any]:
    """Public attributes that JSON can hold."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training" and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(item, _PLAIN) for item in value)
    return isinstance(value, _PLAIN)
