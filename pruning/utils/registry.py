"""Registries: named, described entries, found by looking into a folder.

Dropping a module into the folder of a registry is all it takes to add an entry: the modules of the
folder are imported at the first look-up, each calls :meth:`Registry.add`. Other installed packages
add theirs through the entry point group of the registry (``headroom.criteria``, ...), whose values
are modules that do the same.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from threading import RLock
from typing import Generic, Literal, TypeVar

from pruning.utils.errors import UsageError

T = TypeVar("T")

Cost = Literal["", "closed form", "reads gradients", "local gradients", "end to end"]
"""What a method needs of the model, as the literature's tables tell methods apart."""

LAST = 1000
"""Place of entries that do not say where in a list they belong."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UsageError:
    """The error for a name that is none of ``known``, with the nearest one."""
    known = list(known)
    near = get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UsageError(f"Unknown {kind} {name!r}; choose one of: {', '.join(known)}.{hint}")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered thing and what a person needs to choose it."""

    name: str
    title: str
    summary: str
    source: str
    value: T
    cost: Cost = ""
    place: int = LAST


class Registry(Generic[T]):
    """Maps a name to an :class:`Entry`; unknown names are refused with the nearest known ones.

    ``package``: dotted name of the folder whose modules register themselves. ``read``: called
    with every file of the folder that is no module and has the suffix ``suffix``.
    """

    def __init__(
        self,
        kind: str,
        package: str | None = None,
        *,
        group: str | None = None,
        suffix: str = "",
        read: Callable[[Path], None] | None = None,
    ) -> None:
        self.kind, self.package, self.group = kind, package, group
        self._suffix, self._read = suffix, read
        self._entries: dict[str, Entry[T]] = {}
        self._lock = RLock()
        self._found = False

    def add(
        self,
        name: str,
        value: T,
        *,
        title: str,
        summary: str,
        source: str,
        cost: Cost = "",
        place: int = LAST,
    ) -> T:
        """Register ``value``; raises ValueError when the name is taken."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._entries[name] = Entry(name, title, summary, source, value, cost, place)
        return value

    def entry(self, name: str) -> Entry[T]:
        """The entry called ``name``; raises UsageError naming near or all known ones."""
        entries = self._all()
        if name not in entries:
            raise unknown_name(self.kind, name, sorted(entries))
        return entries[name]

    def __getitem__(self, name: str) -> T:
        return self.entry(name).value

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def __iter__(self) -> Iterator[Entry[T]]:
        return iter(sorted(self._all().values(), key=lambda entry: (entry.place, entry.name)))

    def names(self) -> list[str]:
        """Registered names, in the order that people see."""
        return [entry.name for entry in self]

    def _all(self) -> dict[str, Entry[T]]:
        if not self._found:
            with self._lock:
                self._discover()
        return self._entries

    def _discover(self) -> None:
        """Import what registers itself, once; a failed import is raised again next time."""
        if self._found:
            return
        if self.package is not None:
            folder = import_module(self.package)
            for module in pkgutil.iter_modules(folder.__path__, f"{self.package}."):
                if not module.ispkg and not module.name.rpartition(".")[2].startswith("_"):
                    import_module(module.name)
            if self._read is not None:
                files = (file for place in folder.__path__ for file in Path(place).iterdir())
                for file in sorted(files):
                    if file.suffix == self._suffix:
                        self._read(file)
        if self.group is not None:
            for point in entry_points(group=self.group):
                point.load()
        self._found = True
