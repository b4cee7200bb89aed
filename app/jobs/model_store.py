"""Dense models in memory, shared by all visitors of this process and never changed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app import settings
from app.jobs import memory
from pruning.artifacts.recipe import ModelChoice

Loader = Callable[[ModelChoice, str], Any]
"""``(choice, device) -> LoadedModel``."""


def default_byte_limit() -> int:
    """Half of the memory; the other half is for pruned copies and work."""
    limit = settings.current().memory_gb
    return (memory.total_bytes() if limit is None else round(limit * settings.GB)) // 2


class ModelStore:
    """Keeps the most recently used models within a count and a number of bytes."""

    def __init__(self, *, count: int = 3, byte_limit: int | None = None) -> None:
        self._count = count
        self._bytes = default_byte_limit() if byte_limit is None else byte_limit
        self._models: OrderedDict[tuple, Any] = OrderedDict()
        self._loading: dict[tuple, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, choice: ModelChoice, device: str, load: Loader) -> Any:
        """The model for ``choice`` on ``device``; loaded once even if two visitors ask."""
        key = _key(choice, device)
        with self._lock:
            gate = self._loading.setdefault(key, threading.Lock())
        with gate:
            with self._lock:
                if key in self._models:
                    self._models.move_to_end(key)
                    return self._models[key]
            try:
                loaded = load(choice, device)
                with self._lock:
                    self._models[key] = loaded
                self._evict()
                return loaded
            finally:
                with self._lock:
                    self._loading.pop(key, None)

    def has(self, choice: ModelChoice, device: str) -> bool:
        """Whether :meth:`get` would find the model loaded."""
        return _key(choice, device) in self._models

    def make_room(self, size: int) -> None:
        """Drop the least recently used models until ``size`` more bytes fit within the bounds."""
        self._evict(extra_bytes=size, extra_count=1, keep=0)

    def addresses(self) -> set[int]:
        """Storages that the models of the store hold."""
        with self._lock:
            return set(memory.storages(loaded.model for loaded in self._models.values()))

    def _evict(self, *, extra_bytes: int = 0, extra_count: int = 0, keep: int = 1) -> None:
        dropped = []
        with self._lock:
            while len(self._models) > keep and (
                len(self._models) + extra_count > self._count
                or self._held() + extra_bytes > self._bytes
            ):
                dropped.append(self._models.popitem(last=False))
        if dropped:
            del dropped
            memory.free_memory()

    def _held(self) -> int:
        return sum(memory.storages(held.model for held in self._models.values()).values())

    def __len__(self) -> int:
        return len(self._models)


def _key(choice: ModelChoice, device: str) -> tuple:
    return (choice.source, choice.revision, choice.dtype, device, _stamp(choice.source))


def _stamp(source: str) -> tuple:
    """Sizes, inodes and times of local files: a model overwritten on disk is another model, also
    under the old time of modification."""
    path = Path(source).expanduser()
    if source == "demo" or not path.exists():
        return ()
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    stats = [(file.name, file.stat()) for file in files]
    return tuple((n, s.st_size, s.st_ino, s.st_mtime_ns, s.st_ctime_ns) for n, s in stats)
