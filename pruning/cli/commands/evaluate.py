"""``evaluate``: perplexity on a text."""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace
from typing import Any

from pruning.cli.base import COMMANDS, Command
from pruning.cli.console import Console
from pruning.cli.options import add_model, add_reading, load_model, text_help
from pruning.utils.errors import HeadroomError

SOME_WINDOWS = 64
"""Evaluation windows that memory is estimated for before the text is read."""


class Evaluate(Command):
    """The number and its protocol."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_model(parser)
        parser.add_argument("--text", required=True, metavar="SRC", help=text_help())
        add_reading(parser)
        parser.add_argument("--seq-len", type=int, default=128, metavar="N")
        parser.add_argument(
            "--windows", type=int, metavar="N", help="first N windows (default all)"
        )

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        from pruning.evaluate import perplexity
        from pruning.models.loading.sizes import Task

        task = Task(arguments.windows or SOME_WINDOWS, arguments.seq_len, prunes=False)
        loaded = load_model(arguments, console, task)
        result = perplexity(
            loaded.model,
            loaded.tokenizer,
            arguments.text,
            seq_len=arguments.seq_len,
            windows=arguments.windows,
            bos=arguments.bos or "auto",
            text_field=arguments.text_field,
            progress=console.progress,
        )
        if math.isinf(result.perplexity):
            raise HeadroomError(
                f"The perplexity overflows (mean negative log-likelihood {result.nll:.1f} nats): "
                "the model is broken; prune less, or with recovery."
            )
        return {**result.as_dict(), "protocol": result.protocol()}


COMMANDS.add("evaluate", Evaluate(), summary="perplexity on a text", place=30)
