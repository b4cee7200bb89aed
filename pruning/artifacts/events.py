"""What long work tells its caller while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp
from typing import Literal

from pydantic import FiniteFloat

from pruning.artifacts.plan import ModulePlan
from pruning.artifacts.shapes import ModuleKind
from pruning.artifacts.tuning import TuningStep
from pruning.utils.errors import Cancelled


@dataclass(frozen=True)
class ModuleEvent:
    """One module was pruned or refitted.

    Errors are relative: squared error of the module's output on the calibration tokens over
    the squared norm of the dense output; ``error_before`` with the cut weights as they were
    before any recovery, ``error_after`` with the recovered ones. ``damping`` is the chosen
    relative ridge (None: nothing was solved). ``solve_seconds`` of ``seconds`` went into solves.
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
class RecoveryCheck:
    """The recovered model beside the plain cut (the same plan, nothing repaired), on ``windows``
    held-out windows of the calibration text. Losses are means in nats per predicted token, None
    where they are not finite; ``kept``: the one that the run gives, never the worse."""

    recovered: FiniteFloat | None
    plain: FiniteFloat | None
    windows: int
    seq_len: int
    kept: Literal["recovered", "plain"]
    seconds: FiniteFloat

    def sentence(self) -> str:
        """For people."""
        found = f"perplexity {_perplexity(self.recovered)} against {_perplexity(self.plain)}"
        where = f"on {self.windows} held-out windows"
        if self.kept == "recovered":
            return f"Checked: {found} of the plain cut {where}, so the recovery is kept."
        return (
            f"The recovery made the model worse than doing nothing ({found} of the plain cut "
            f"{where}), so the plain cut is kept. Choose another recovery, or more text."
        )


def _perplexity(loss: float | None) -> str:
    """``e`` to the ``loss``, with the digits that say something."""
    if loss is None or loss > 700.0:
        return "beyond measure"
    value = exp(loss)
    return f"{value:,.2f}" if value < 1000.0 else f"{value:,.0f}" if value < 1e9 else f"{value:.1e}"


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` steps of ``stage``: load, measure, patterns, rewrite, prune, check,
    tune, evaluate, generate or save. After a ``check`` that keeps the plain cut the modules are
    pruned once more, and only their later events count."""

    stage: str
    done: int
    total: int
    message: str
    event: ModuleEvent | None = None
    check: RecoveryCheck | None = None
    tuning: TuningStep | None = None


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
