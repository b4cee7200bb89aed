"""``validate``: what a recipe would do, without doing it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruning.cli.base import COMMANDS, Command
from pruning.cli.console import Console
from pruning.cli.options import add_form, add_model, checked
from pruning.cli.recipe import recipe_from


class Validate(Command):
    """Reads the recipe and the model's config; no weights, and no text is measured."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("recipe", metavar="RECIPE", help="the recipe, a YAML file")
        add_model(parser)
        parser.add_argument("--out", metavar="DIR", help="where the pruned model would go")
        add_form(parser, default="compact")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        recipe = recipe_from(arguments)
        out = Path(arguments.out) if arguments.out else None
        return checked(arguments, recipe, out=out, form=arguments.form).as_dict()

    def text(self, result: Mapping[str, Any]) -> str:
        first, end = result["blocks_to_cut"]
        after = "" if result["exact"] else "at most "
        parameters, megabytes = result["parameters_after"], result["bytes_after"] / 1e6
        lines = {
            "model": f"{result['model']} ({result['architecture']})",
            "computed in": result["dtype"],
            "saved in": result["saved_dtype"],
            "blocks": f"[{first}, {end}) of {result['blocks']} may be cut",
            "parameters": f"{result['parameters_before']:,} -> {after}{parameters:,}",
            "megabytes": f"{result['bytes_before'] / 1e6:,.1f} -> {after}{megabytes:,.1f}",
            "allocation": result["allocation"],
            "head policy": result["head_policy"] or "none needed: heads share nothing",
            "cost": result["cost"],
            "passes": ", ".join(result["passes"]),
            "memory": result["memory"],
            "placement": f"{result['placement']} on {result['device']}",
            "form": result["form"],
        }
        text = [f"{name}: {value}" for name, value in lines.items()]
        return "\n".join([*text, *(f"note: {remark}" for remark in result["remarks"])])


COMMANDS.add(
    "validate", Validate(), summary="say what a recipe would do, without doing it", place=15
)
