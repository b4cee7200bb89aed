"""Named, described entries (criteria, recoveries, allocations, corpora, families)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from pruning.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered thing and what a person needs to choose it."""

    name: str
    title: str
    summary: str
    source: str
    value: T


class Registry(Generic[T]):
    """Maps a name to an :class:`Entry`; unknown names are refused with the list of known ones."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[T]] = {}

    def add(self, name: str, value: T, *, title: str, summary: str, source: str) -> T:
        """Register ``value``; raises ValueError when the name is taken."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._entries[name] = Entry(name, title, summary, source, value)
        return value

    def entry(self, name: str) -> Entry[T]:
        """The entry called ``name``; raises UsageError naming the known ones."""
        try:
            return self._entries[name]
        except KeyError:
            known = ", ".join(sorted(self._entries))
            raise UsageError(f"Unknown {self.kind} {name!r}; choose one of: {known}.") from None

    def __getitem__(self, name: str) -> T:
        return self.entry(name).value

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[Entry[T]]:
        return iter(self._entries.values())

    def names(self) -> list[str]:
        """Registered names, in order of registration."""
        return list(self._entries)
