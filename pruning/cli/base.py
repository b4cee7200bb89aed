"""What a command is: its arguments, its run, and its result as text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from pruning.cli.console import Console
from pruning.utils.registry import Registry


class Command(ABC):
    """One command of ``headroom``. Add a file to ``pruning/cli/commands`` that registers one; other
    packages add theirs through the entry point group ``headroom.commands``.

    The module is imported whenever the command line starts, so it imports torch in ``run`` only.
    """

    shares_work = False
    """Whether processes that torchrun starts can do it together."""

    @abstractmethod
    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the command's own arguments (``--json`` is there already)."""

    @abstractmethod
    def run(self, arguments: Namespace, console: Console) -> dict[str, Any] | None:
        """Do the work; returns what ``--json`` prints, or None where another rank has the result.
        Raises HeadroomError in one line."""

    def text(self, result: Mapping[str, Any]) -> str:
        """The result as people read it: ``name: value`` lines; nested parts are left to
        ``--json``."""
        flat = {k: v for k, v in result.items() if not isinstance(v, (dict, list, tuple))}
        return "\n".join(f"{name}: {value}" for name, value in flat.items())


COMMANDS: Registry[Command] = Registry("command", "pruning.cli.commands", group="headroom.commands")


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Aligned columns under their names; a column without any value is left out."""
    shown = [name for name in columns if any(row[name] not in ("", None) for row in rows)]
    cells = [shown, *([_cell(row[name]) for name in shown] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
