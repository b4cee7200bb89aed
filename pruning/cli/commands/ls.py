"""``ls``: what can be chosen, by kind."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pruning.cli.base import COMMANDS, Command, table
from pruning.cli.console import Console
from pruning.registries import KINDS

COLUMNS = ("name", "title", "cost", "source")


class List(Command):
    """The entries of one registry, those of other installed packages included."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "kind", choices=tuple(KINDS), metavar="KIND", help=f"one of: {', '.join(KINDS)}"
        )

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        rows = [asdict(entry) for entry in KINDS[arguments.kind]]
        columns = (*COLUMNS, "summary")
        return {
            "kind": arguments.kind,
            "entries": [{name: row[name] for name in columns} for row in rows],
        }

    def text(self, result: Mapping[str, Any]) -> str:
        return table(result["entries"], COLUMNS)


COMMANDS.add(
    "ls", List(), summary="list families, criteria, presets and what else can be chosen", place=80
)
