"""``sweep``: perplexity along one setting of a recipe, for several methods."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from pruning.cli.base import COMMANDS, Command, table
from pruning.cli.console import Console
from pruning.cli.options import (
    add_calibration,
    add_decisions,
    add_executor,
    add_model,
    checked,
    executor_of,
    load_model,
    own_copy,
    parse_names,
    parse_numbers,
    preset_help,
    text_help,
)
from pruning.cli.recipe import recipe_from
from pruning.sweep import AXES, PLAIN_CUT, Sweep, SweepPoint, sweep


class SweepCommand(Command):
    """The dense model's point and one point for each value and method."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_model(parser)
        add_calibration(parser)
        add_decisions(parser)
        add = parser.add_argument
        add("--axis", choices=tuple(AXES), default="ratio")
        add("--values", type=parse_numbers, required=True, metavar="A,B,...")
        add(
            "--presets",
            type=parse_names,
            default=("fast",),
            metavar="A,B,...",
            help=f"methods, {preset_help()}",
        )
        add("--text", default="sample", metavar="SRC", help=text_help())
        add("--text-seq-len", type=int, default=128, metavar="N")
        add("--windows", type=int, metavar="N", help="first N windows (default all)")
        add_executor(parser)

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        wanted = Sweep(
            recipe_from(arguments),
            arguments.axis,
            arguments.values,
            arguments.presets,
            arguments.text,
            arguments.text_seq_len,
            arguments.windows,
        )
        executor = executor_of(arguments)
        variants = [wanted.recipe_at(*point) for point in wanted.points()]
        checked(arguments, variants[0], variants=variants[1:], texts=(wanted.text,))
        from pruning.pipeline import memory_task

        own = own_copy(arguments, executor)
        loaded = load_model(own, console, memory_task(wanted.recipe), wanted.recipe)

        def say_point(point: SweepPoint) -> None:
            size = "overflow" if point.perplexity is None else f"{point.perplexity:.3f}"
            value = "" if point.value is None else f" at {point.value:g}"
            console.say("sweep", f"{point.preset}{value}: perplexity {size}")

        points = sweep(
            loaded, wanted, executor=executor, on_point=say_point, progress=console.progress
        )
        return {
            "axis": wanted.axis,
            "protocol": points[0].protocol,
            "points": [asdict(point) for point in points],
        }

    def text(self, result: Mapping[str, Any]) -> str:
        columns = [field.name for field in fields(SweepPoint) if field.name != "protocol"]
        points = result["points"]
        parts = [super().text(result), table(points, columns)]
        if any(point["recovery"] == "plain" for point in points):
            parts.append(PLAIN_CUT)
        return "\n\n".join(parts)


COMMANDS.add(
    "sweep",
    SweepCommand(),
    summary="perplexity along a ratio, τ or the number of samples",
    place=40,
)
