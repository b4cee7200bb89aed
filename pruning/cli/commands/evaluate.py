"""``evaluate``: perplexity on a text, accuracy on zero-shot tasks, continuations."""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.artifacts.zero_shot import TASK_NAMES, TaskScore
from pruning.cli.base import COMMANDS, Command, table
from pruning.cli.console import Console, silence_libraries
from pruning.cli.options import (
    add_model,
    add_reading,
    add_task_data,
    load_model,
    parse_names,
    text_help,
)
from pruning.utils.errors import HeadroomError, UsageError

if TYPE_CHECKING:
    from pruning.evaluate.task_data import TaskSource
    from pruning.models.loading.loaded import LoadedModel
    from pruning.models.loading.sizes import Task

SOME_WINDOWS = 64
"""Evaluation windows that memory is estimated for before the text is read."""


class Evaluate(Command):
    """Every number with its protocol."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_model(parser)
        add = parser.add_argument
        add("--text", metavar="SRC", help=f"perplexity on a {text_help()}")
        add_reading(parser)
        add("--seq-len", type=int, default=128, metavar="N")
        add("--windows", type=int, metavar="N", help="first N windows (default all)")
        tasks = f"zero-shot tasks, 'all' or some of: {', '.join(TASK_NAMES)}"
        add("--tasks", type=parse_names, metavar="A,B,...", help=tasks)
        add_task_data(parser)
        cost = "parameters, MACs per token, latencies and peak memory"
        add("--cost", action="store_true", help=cost)
        add("--against", metavar="DENSE", help="compare continuations with those of this model")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        if not (arguments.text or arguments.tasks or arguments.cost or arguments.against):
            raise UsageError("Nothing to evaluate; give --text, --tasks, --cost or --against.")
        sources = _sources(arguments)
        from pruning.models.loading.sizes import Task

        task = Task(arguments.windows or SOME_WINDOWS, arguments.seq_len, prunes=False)
        loaded = load_model(arguments, console, task)
        dense = _dense(loaded, arguments, console, task) if arguments.against else None
        result: dict[str, Any] = {}
        if arguments.text:
            result |= _perplexity(loaded, arguments, console)
        if sources:
            from pruning.evaluate import zero_shot

            report = zero_shot(loaded, sources, limit=arguments.limit, progress=console.progress)
            result["zero_shot"] = report.as_dict()
        if arguments.cost:
            from pruning.evaluate import measured_cost

            limit = loaded.adapter.max_positions(loaded.model.config)
            new = min(32, limit // 2)
            prompt = min(arguments.seq_len, limit - new)
            cost = measured_cost(loaded.model, prompt_tokens=prompt, new_tokens=new)
            result["cost"] = cost.as_dict()
        if dense is not None:
            from pruning.evaluate import compare_continuations

            found = compare_continuations(
                dense.model, loaded.model, loaded.tokenizer, progress=console.progress
            )
            result["continuations"] = found.as_dict()
        return result

    def text(self, result: Mapping[str, Any]) -> str:
        parts = [super().text(result)]
        if "zero_shot" in result:
            found = result["zero_shot"]
            mean = {"task": "mean", "accuracy": found["mean"], "stderr": found["mean_stderr"]}
            blank = dict.fromkeys(TaskScore.__dataclass_fields__)
            rows = [*found["scores"], {**blank, **mean}]
            columns = ("task", "accuracy", "stderr", "metric", "items", "version", "data")
            parts.append(f"{table(rows, columns)}\n{found['protocol']}")
        for name in ("cost", "continuations"):
            parts.append(super().text(result.get(name, {})))
        return "\n\n".join(part for part in parts if part)


def _sources(arguments: Namespace) -> tuple[TaskSource, ...]:
    """The tasks, their rows read once, before any weight is."""
    if not arguments.tasks:
        return ()
    from pruning.evaluate.task_data import task_sources

    names = TASK_NAMES if arguments.tasks == ("all",) else arguments.tasks
    folder = Path(arguments.task_data).expanduser() if arguments.task_data else None
    sources = task_sources(names, folder)
    silence_libraries()
    from pruning.evaluate.zero_shot import check_tasks

    check_tasks(sources, arguments.limit)
    return sources


def _perplexity(loaded: LoadedModel, arguments: Namespace, console: Console) -> dict[str, Any]:
    from pruning.evaluate import perplexity

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


def _dense(loaded: LoadedModel, arguments: Namespace, console: Console, task: Task) -> LoadedModel:
    """The model that ``loaded`` is compared with, before anything is evaluated."""
    given = Namespace(**{**vars(arguments), "model": arguments.against, "revision": None})
    dense = load_model(given, console, task)
    if dense.model.config.vocab_size != loaded.model.config.vocab_size:
        raise UsageError(
            f"{arguments.against} has another vocabulary; name the model that {arguments.model} "
            "was made from."
        )
    return dense


COMMANDS.add(
    "evaluate", Evaluate(), summary="perplexity on a text, zero-shot tasks, continuations", place=30
)
