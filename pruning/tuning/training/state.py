"""An unfinished training on disk, so that the same run goes on where it was ended."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shutil import rmtree

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pruning.artifacts.tuning import TuningStep
from pruning.utils.atomic_dir import file_aside
from pruning.utils.errors import HeadroomError
from pruning.utils.files import cache_root
from pruning.utils.leftovers import sweep_old

KEPT_SECONDS = 7 * 24 * 3600.0
"""How long a training that nobody goes on with is kept."""
_SHARE = 0.05
"""At most so much of the time goes into writing."""


@dataclass
class Position:
    """Where a training stands: after ``step`` steps and ``seconds``; ``summed`` losses of
    ``counted`` steps are not in ``curve`` yet."""

    step: int = 0
    seconds: float = 0.0
    summed: float = 0.0
    counted: int = 0
    curve: list[TuningStep] = field(default_factory=list)


class StateFile:
    """The state of the training ``key`` in the cache folder, written at most every ``pause``
    seconds. Where it cannot be written, only the way back is lost."""

    def __init__(self, key: str, pause: float) -> None:
        self._folder = cache_root() / "tunings" / key
        self._pause, self._written = pause, time.perf_counter()
        sweep_old(self._folder.parent, KEPT_SECONDS, keep=(self._folder,))

    @property
    def path(self) -> Path:
        return self._folder / "state.safetensors"

    @property
    def due(self) -> bool:
        return time.perf_counter() - self._written >= self._pause

    def write(self, position: Position, tensors: Mapping[str, Tensor]) -> None:
        """Keep ``tensors`` and ``position``, whole or not at all."""
        started = time.perf_counter()
        try:
            with file_aside(self.path) as place:
                plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
                save_file(plain, place, {"position": json.dumps(asdict(position))})
        except HeadroomError:
            pass
        self._written = time.perf_counter()
        self._pause = max(self._pause, (self._written - started) / _SHARE)

    def read(self) -> tuple[Position, dict[str, Tensor]] | None:
        """What was kept last; None where there is nothing, or nothing whole."""
        try:
            with safe_open(self.path, framework="pt") as file:
                data = json.loads(file.metadata()["position"])
                curve = [TuningStep(**point) for point in data.pop("curve")]
                tensors = {name: file.get_tensor(name) for name in file.keys()}
                return Position(**data, curve=curve), tensors
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None

    def remove(self) -> None:
        """The training is done."""
        rmtree(self._folder, ignore_errors=True)
