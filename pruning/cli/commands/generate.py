"""``generate``: continue a prompt greedily."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from pruning.cli.base import COMMANDS, Command
from pruning.cli.console import Console
from pruning.cli.options import add_model, load_model


class Generate(Command):
    """The text, how many tokens it has and how long they took."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_model(parser)
        parser.add_argument("--prompt", required=True, metavar="TEXT")
        parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        from pruning.evaluate import generate
        from pruning.models.loading.sizes import Task

        loaded = load_model(arguments, console, Task(1, prunes=False))
        result = generate(
            loaded.model,
            loaded.tokenizer,
            arguments.prompt,
            max_new_tokens=arguments.max_new_tokens,
        )
        return {
            "prompt": arguments.prompt,
            "text": result.text,
            "new_tokens": result.new_tokens,
            "seconds": result.seconds,
        }


COMMANDS.add("generate", Generate(), summary="continue a prompt greedily", place=50)
