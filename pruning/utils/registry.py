"""Registries: named, described entries, found by looking into a folder.

Dropping a module into the folder of a registry is all it takes to add an entry: the modules of the
folder are imported at the first look-up, and each calls :meth:`Registry.add`. Other installed
packages add theirs through the entry point group of the registry (``headroom.criteria``, ...),
whose values are such modules, or packages that are looked into in the same way.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module, invalidate_caches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import Any, Generic, Literal, TypeVar, get_args

from pruning.utils.errors import BrokenExtension, HeadroomError, UsageError, short_repr, shortened

T = TypeVar("T")
A = TypeVar("A")

Cost = Literal["", "closed form", "reads gradients", "local gradients", "end to end"]
"""What a method needs of the model, as the literature's tables tell methods apart."""

COSTS: tuple[Cost, ...] = get_args(Cost)
"""All of them, cheapest first."""

LAST = 1000
"""Place of entries that do not say where in a list they belong."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UsageError:
    """The error for a name that is none of ``known``, with the nearest one."""
    known = list(known)
    near = get_close_matches(str(name), known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    # with a path before it, the sentence must stay within what is shown of one
    choices = shortened(", ".join(known), 70 if near else 200)
    return UsageError(f"Unknown {kind} {short_repr(name)}{hint}; choose one of: {choices}.")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered thing and what a person needs to choose it; ``origin`` is its file."""

    name: str
    title: str
    summary: str
    source: str
    value: T
    cost: Cost = ""
    place: int = LAST
    origin: str = ""
    module: str = ""


class Registry(Generic[T]):
    """Maps a name to an :class:`Entry`; unknown names are refused with the nearest known ones.

    ``package``: dotted name of the folder whose modules register themselves. ``suffix`` and
    ``read``: files of the folder with that suffix hold an entry each, as data; ``read`` is the
    ``module:function`` that makes an :class:`Entry` of such a file. ``group``: entry points of
    other packages. Everything that looks up raises BrokenExtension, one sentence that names the
    file, when a file cannot be used; the next look-up tries again. Safe to use from many threads.
    """

    def __init__(
        self,
        kind: str,
        package: str | None = None,
        *,
        group: str | None = None,
        suffix: str = "",
        read: str = "",
    ) -> None:
        self.kind, self.package, self.group = kind, package, group
        self._suffix, self._read = suffix, read
        self._entries: dict[str, Entry[T]] = {}
        # two locks: a thread that imports a file may add while another one looks for files
        self._adding, self._looking = RLock(), RLock()
        self._state: Literal["new", "looking", "found"] = "new"

    def add(
        self,
        name: str,
        value: T,
        *,
        summary: str,
        title: str = "",
        source: str = "",
        cost: Cost = "",
        place: int = LAST,
    ) -> T:
        """Register ``value``; raises ValueError when the name is taken. ``title`` and ``source``
        belong to everything that people choose from."""
        caller = sys._getframe(1).f_globals
        origin, module = str(caller.get("__file__", "")), str(caller.get("__name__", ""))
        self._insert(Entry(name, title, summary, source, value, cost, place, origin, module))
        return value

    def remove(self, name: str) -> None:
        """Take the entry ``name`` out again; nothing happens when there is none."""
        with self._adding:
            self._entries = {key: entry for key, entry in self._entries.items() if key != name}

    def refresh(self) -> None:
        """Look for files and entry points again at the next look-up."""
        with self._looking:
            invalidate_caches()
            self._state = "new"

    def entry(self, name: str) -> Entry[T]:
        """The entry called ``name``; raises UsageError naming near and all known ones."""
        entries = self._all()
        if name not in entries:
            raise unknown_name(self.kind, name, self.names())
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
        if self._state != "found":
            with self._looking:
                # a file that looks up while it is imported sees what is there so far
                if self._state == "new":
                    self._discover()
        return self._entries

    def _insert(self, entry: Entry[T]) -> None:
        with self._adding:
            if entry.name in self._entries:
                taken = self._entries[entry.name].origin or "elsewhere"
                where = f" (by {entry.origin})" if entry.origin else ""
                raise ValueError(
                    f"{self.kind} {entry.name!r} is registered twice{where}, first by {taken}"
                )
            # a new dict: others may be walking through the old one
            self._entries = {**self._entries, entry.name: entry}

    def _discover(self) -> None:
        """Import what registers itself, once."""
        self._state = "looking"
        try:
            if self.package is not None:
                self._look_into(import_module(self.package))
            if self.group is not None:
                for point in entry_points(group=self.group):
                    self._attempt(_described(point), self._load, point)
            self._state = "found"
        finally:
            if self._state == "looking":
                self._state = "new"

    def _load(self, point: EntryPoint) -> None:
        loaded = point.load()
        if isinstance(loaded, ModuleType) and hasattr(loaded, "__path__"):
            self._look_into(loaded)

    def _look_into(self, package: ModuleType) -> None:
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            name = module.name.rpartition(".")[2]
            if not module.ispkg and not name.startswith("_"):
                where = str(Path(getattr(module.module_finder, "path", "")) / f"{name}.py")
                self._attempt(where, import_module, module.name)
        if self._suffix:
            files = (file for place in package.__path__ for file in Path(place).iterdir())
            for file in sorted(file for file in files if file.suffix == self._suffix):
                self._attempt(str(file), self._read_file, file)

    def _read_file(self, file: Path) -> None:
        """Add the entry of a file, unless it was added before a later file failed."""
        if all(entry.origin != str(file) for entry in self._entries.values()):
            read: Callable[[Path], Entry[T]] = pkgutil.resolve_name(self._read)
            self._insert(replace(read(file), origin=str(file)))

    def _attempt(self, where: str, action: Callable[[A], Any], argument: A) -> None:
        """Call ``action``; when it fails, forget what the modules added that are then not loaded
        (they will be run again), and raise BrokenExtension naming ``where``."""
        try:
            action(argument)
        except Exception as error:  # whatever a file of another author raises
            with self._adding:
                self._entries = {
                    name: entry
                    for name, entry in self._entries.items()
                    if not entry.module or entry.module in sys.modules
                }
            if isinstance(error, BrokenExtension):
                raise
            kind = "" if isinstance(error, HeadroomError | ValueError) else type(error).__name__
            line = next(iter(str(error).strip().splitlines()), "").rstrip(".")
            reason = ": ".join(part for part in (kind, line) if part)
            raise BrokenExtension(
                f"The {self.kind} in {where} cannot be used: {reason}; repair or remove it."
            ) from error


def _described(point: EntryPoint) -> str:
    package = f" of the package {point.dist.name}" if point.dist else ""
    return f"{point.value}, entry point {point.name!r}{package},"
