"""What is trained of a model, as leaves of the graph that are its alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from pruning.adapters import ModelAdapter


@dataclass(frozen=True)
class Trainable:
    """``parameters`` by name: float32, with gradients. ``weights()``: what they come to, by the
    paths of the model's own parameters; nothing is trained after that. ``relative``: the learning
    rate is meant for parameters of size one, and is multiplied with that of each."""

    parameters: Mapping[str, nn.Parameter]
    weights: Callable[[], Mapping[str, Tensor]]
    relative: bool = False

    def scales(self) -> list[float]:
        """What the learning rate of each parameter is multiplied with. Sizes as Adafactor takes
        them: root mean squares, at least a thousandth."""
        if not self.relative:
            return [1.0] * len(self.parameters)
        sizes = (value.detach().square().mean().sqrt() for value in self.parameters.values())
        return [max(size.item(), 1e-3) for size in sizes]


def leaves(model: nn.Module, paths: Iterable[str], *, relative: bool = False) -> Trainable:
    """The parameters of ``model`` at ``paths``, which become copies that no other model shares."""
    found = {}
    for path in paths:
        found[path] = nn.Parameter(model.get_parameter(path).detach().clone())
        set_parameter(model, path, found[path])
    plain = {path: value.detach() for path, value in found.items()}
    return Trainable(found, lambda: plain, relative)


def set_parameter(model: nn.Module, path: str, value: nn.Parameter) -> None:
    """Hang ``value`` in the place of the parameter at ``path``."""
    owner, _, name = path.rpartition(".")
    setattr(model.get_submodule(owner), name, value)


def norm_gains(model: nn.Module) -> list[str]:
    """Paths of the gains of all norms, those of heads included. Norms are told by their class, for
    every family of transformers has one of its own."""
    return [
        f"{path}.weight"
        for path, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
        and isinstance(module._parameters.get("weight"), nn.Parameter)
        and module._parameters["weight"].dim() == 1
    ]


def block_weights(model: nn.Module, adapter: ModelAdapter) -> list[str]:
    """Paths of every parameter of the blocks."""
    inside = {id(parameter) for parameter in adapter.blocks(model).parameters()}
    return [path for path, value in model.named_parameters() if id(value) in inside]
