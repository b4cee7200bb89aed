"""What a cell takes, from the model's config alone, and what to ask of a cluster for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pruning.artifacts.recipe import Recipe
from pruning.experiments.cells import CellStore
from pruning.utils.errors import OutOfMemory, UsageError

if TYPE_CHECKING:
    from pruning.models.loading.memory_needs import MemoryEstimate
    from pruning.models.loading.sizes import Task

PROCESS_BYTES = 700 * 10**6
"""Of an interpreter that has imported torch and transformers."""


@dataclass(frozen=True)
class CellNeeds:
    """How to load the model for a cell, and the bytes of CPU memory that it takes by placement,
    those to try in their order; ``cards``: how many it works on."""

    source: str
    revision: str | None
    dtype: str | None
    device: str
    placement: str
    task: Task
    cpu_bytes: int
    cards: int


@dataclass(frozen=True)
class Request:
    """What Ray is asked for."""

    cpus: int
    gpus: int
    memory_bytes: int

    def sentence(self) -> str:
        parts = [f"{self.cpus} CPUs", f"{self.gpus} GPUs" if self.gpus else ""]
        parts.append(f"{self.memory_bytes / 1e9:.1f} GB of memory")
        return f"each on {', '.join(part for part in parts if part)}"


def cell_needs(
    store: CellStore, recipes: Sequence[Recipe | None], device: str, placement: str
) -> list[CellNeeds]:
    """Of the cells of ``recipes``; raises what :func:`pruning.load` raises before it reads weights,
    and UsageError for a model that has no name to load it by."""
    from pruning.models.loading import memory_estimate, resolve
    from pruning.models.loading.outline import outline
    from pruning.models.loading.sizes import EVALUATION
    from pruning.pipeline import memory_task

    loaded = store.loaded
    if loaded.identity.startswith("memory:"):
        raise UsageError(
            "Workers load the model by its name, which a model in memory has not; save it and "
            "name the folder."
        )
    dtype = None if loaded.file_dtype else loaded.dtype
    where = resolve.resolve_device(device)
    found = outline(loaded.source, loaded.revision, dtype)
    cards = len(resolve.compute_devices(where))
    kind = where.partition(":")[0]
    made = []
    for recipe in recipes:
        task = EVALUATION if recipe is None else memory_task(recipe)
        needs = memory_estimate.of_outline(found, where, task, cards)
        chosen = _placement(needs, placement)
        used = 0 if kind == "cpu" else cards if chosen == "spread" else 1
        on_device, on_cpu = needs.needs(chosen)
        taken = PROCESS_BYTES + (on_device if kind == "cpu" else on_cpu)
        made.append(
            CellNeeds(loaded.source, loaded.revision, dtype, kind, chosen, task, taken, used)
        )
    return made


def _placement(needs: MemoryEstimate, placement: str) -> str:
    """The one that is asked for, or the quickest that this machine, like which the others are
    taken to be, has room for; raises OutOfMemory with the arithmetic."""
    chosen = needs.placement() if placement == "auto" else placement
    if chosen is None:
        raise OutOfMemory(needs.sentence())
    return chosen


def requests(needs: Sequence[CellNeeds], nodes: Sequence[Mapping[str, Any]]) -> list[Request]:
    """What to ask for each cell on a cluster of ``nodes`` (their resources as Ray names them): as
    many cells at a time as memory and cards allow, the CPUs divided among them. Raises OutOfMemory
    where no node has enough."""
    return [_request(need, nodes, len(needs)) for need in needs]


def _request(need: CellNeeds, nodes: Sequence[Mapping[str, Any]], cells: int) -> Request:
    fitting = [
        node
        for node in nodes
        if node.get("memory", 0) >= need.cpu_bytes and node.get("GPU", 0) >= need.cards
    ]
    if not fitting:
        most = max((node.get("memory", 0) for node in nodes), default=0) / 1e9
        cards = f" and {need.cards} GPUs" if need.cards else ""
        raise OutOfMemory(
            f"A cell takes {need.cpu_bytes / 1e9:.1f} GB of memory{cards}, and no node of Ray has "
            f"that (the largest {most:.1f} GB); choose fewer samples or --placement disk."
        )
    cpus = min(int(node.get("CPU", 1)) // max(1, _at_once(need, node, cells)) for node in fitting)
    return Request(max(1, cpus), need.cards, need.cpu_bytes)


def _at_once(need: CellNeeds, node: Mapping[str, Any], cells: int) -> int:
    """How many such cells a node works on at a time."""
    limits = [cells, int(node.get("CPU", 1)), int(node["memory"] // need.cpu_bytes)]
    if need.cards:
        limits.append(int(node["GPU"] // need.cards))
    return min(limits)
