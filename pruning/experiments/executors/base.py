"""What an executor is: it computes the cells of a grid that are not on disk yet.

Add one: a file in this folder that registers a class; ``headroom reproduce --executor`` and
``headroom sweep --executor`` offer it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pruning import registries
from pruning.artifacts.cell import Cell
from pruning.artifacts.events import CancelCheck
from pruning.artifacts.recipe import Recipe
from pruning.experiments.cells import CellStore
from pruning.utils.registry import Registry


@dataclass(frozen=True)
class Job:
    """One cell to compute: ``recipe`` None is the dense model; ``name`` is for people."""

    name: str
    recipe: Recipe | None


Done = Callable[[Job, Cell], None]
Report = Callable[[str], None]
"""Takes a line for people about what goes on."""


class Executor(ABC):
    """``device`` and ``placement``: those of the request, for executors that load the model again.
    Raises UsageError, one sentence, when what it needs is not installed."""

    works_here = True
    """Whether cells are computed on the loaded model that the caller holds."""

    def __init__(self, device: str = "auto", placement: str = "auto") -> None:
        self.device, self.placement = device, placement

    @abstractmethod
    def compute(
        self,
        store: CellStore,
        jobs: Sequence[Job],
        *,
        done: Done,
        report: Report,
        should_cancel: CancelCheck,
    ) -> None:
        """Compute every one of ``jobs`` for the model and protocol of ``store``; ``done`` stores
        each as it is finished, in any order. Raises Cancelled, and what
        :func:`pruning.experiments.cells.compute_cell` raises."""


EXECUTORS: Registry[type[Executor]] = registries.EXECUTORS
