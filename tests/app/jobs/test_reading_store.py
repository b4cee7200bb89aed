"""Readings are kept within bounds, the latest used longest."""

from __future__ import annotations

from dataclasses import dataclass

from app.jobs.reading_store import ReadingStore


@dataclass(frozen=True)
class Fake:
    nbytes: int


def test_readings_are_made_once_within_the_bounds():
    store, made = ReadingStore(count=2, byte_limit=100), []

    def read(size):
        def make():
            made.append(size)
            return Fake(size)

        return store.get((size,), make)

    assert read(10) is read(10) and made == [10]
    read(20), read(10), read(30)
    assert len(store) == 2
    read(10)
    assert made == [10, 20, 30]  # 20 was used least recently
    read(85)
    assert len(store) == 2 and made[-1] == 85
    read(10), read(101)
    assert made[-1] == 101 and len(store) == 2  # larger than all may be
    read(101)
    assert made[-2:] == [101, 101]
