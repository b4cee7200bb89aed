"""``measure``: heads, activations and what the criteria need, into a file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from pruning.cli.base import COMMANDS, Command
from pruning.cli.console import Console
from pruning.cli.options import add_calibration, add_model, checked, load_model, shared
from pruning.cli.recipe import recipe_from
from pruning.utils.files import check_writable


class Measure(Command):
    """One pass over the calibration set; more passes when they are asked for."""

    shares_work = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_model(parser)
        add_calibration(parser)
        parser.add_argument(
            "--gradients",
            action="store_true",
            help="with the gradient pass that Taylor and Fisher criteria need",
        )
        parser.add_argument(
            "--curves",
            action="store_true",
            help="with the loss curves that the allocation 'predicted' needs",
        )
        parser.add_argument("--out", required=True, metavar="FILE.json", help="the file to write")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any] | None:
        out = Path(arguments.out)
        wanted = {"gradients": arguments.gradients, "loss_curves": arguments.curves}
        with shared(arguments) as ranks:
            with ranks.together():
                recipe = recipe_from(arguments)
                check_writable(out)
                curves = arguments.curves
                checked(arguments, recipe, prunes=False, loss_curves=curves, ranks=ranks)
                from pruning.pipeline import measure_model, memory_task

                task = memory_task(recipe, prunes=False, loss_curves=curves)
                loaded = load_model(arguments, console, task, recipe, ranks)
            measurement = measure_model(loaded, recipe, **wanted, progress=console.progress)
        if not ranks.is_first:
            return None
        measurement.write(out)
        return {
            "out": arguments.out,
            "model": measurement.model,
            "dtype": measurement.dtype,
            "blocks": len(measurement.blocks),
            "calibration": measurement.corpus,
            "samples": measurement.samples,
            "seq_len": measurement.seq_len,
            "seconds": measurement.seconds,
        }


COMMANDS.add("measure", Measure(), summary="measure heads and activations", place=10)
