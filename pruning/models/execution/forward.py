"""Another answer for a module's forward pass, for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import nn


@contextmanager
def replaced_forward(module: nn.Module, call: Callable[..., Any]) -> Iterator[None]:
    """Let ``call`` answer for the forward pass of ``module``, whose hooks still run."""
    before = module.__dict__.get("forward")  # accelerate puts one there
    module.forward = call
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


@contextmanager
def replaced_forwards(modules: Iterable[nn.Module], call: Callable[..., Any]) -> Iterator[None]:
    """The same for every one of ``modules``; ``call`` is handed the module first."""
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(replaced_forward(module, partial(call, module)))
        yield
