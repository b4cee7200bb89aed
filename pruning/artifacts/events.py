"""What long work tells its caller while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pruning.artifacts.plan import ModulePlan
from pruning.artifacts.shapes import ModuleKind
from pruning.utils.errors import Cancelled


@dataclass(frozen=True)
class ModuleEvent:
    """One module was pruned or refitted.

    Errors are relative: squared error of the module's output on the calibration tokens over
    the squared norm of the dense output; ``error_before`` with the cut weights as they were,
    ``error_after`` with the recovered ones. ``damping`` is the chosen relative ridge (None:
    nothing was solved). ``solve_seconds`` of ``seconds`` went into solves.
    """

    block: int
    kind: ModuleKind
    units: int
    removed: tuple[int, ...]
    removed_groups: tuple[int, ...]
    error_before: float
    error_after: float
    damping: float | None
    seconds: float
    solve_seconds: float
    decision: ModulePlan


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` steps of ``stage``: load, measure, patterns, rewrite, prune,
    evaluate, generate or save."""

    stage: str
    done: int
    total: int
    message: str
    event: ModuleEvent | None = None


ProgressCallback = Callable[[Progress], None]
CancelCheck = Callable[[], bool]


def ignore(_: Progress) -> None:
    """The default ``progress``: says nothing."""


def never() -> bool:
    """The default ``should_cancel``."""
    return False


def stop_if(should_cancel: CancelCheck) -> None:
    """Raise Cancelled when the caller wants the work to end."""
    if should_cancel():
        raise Cancelled("Cancelled; the model is as it was.")
