"""What dense models made of short texts, kept so that the next change of them begins at once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any


class ReadingStore:
    """Keeps the most recently used readings within a count and a number of bytes."""

    def __init__(self, *, count: int = 8, byte_limit: int = 256 << 20) -> None:
        self._count, self._bytes = count, byte_limit
        self._readings: OrderedDict[tuple, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple, read: Callable[[], Any]) -> Any:
        """The reading of ``key``: the one that is kept, or what ``read`` gives. One that is larger
        than all may be is not kept."""
        with self._lock:
            if key in self._readings:
                self._readings.move_to_end(key)
                return self._readings[key]
        made = read()
        with self._lock:
            if made.nbytes <= self._bytes:
                self._readings[key] = made
            while len(self._readings) > self._count or self._held() > self._bytes:
                self._readings.popitem(last=False)
        return made

    def _held(self) -> int:
        return sum(reading.nbytes for reading in self._readings.values())

    def __len__(self) -> int:
        return len(self._readings)
