"""``reproduce``: a table or figure of the paper, for any model."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruning.artifacts.cell import Cell
from pruning.artifacts.recipe import Recipe
from pruning.cli.base import COMMANDS, Command, table
from pruning.cli.console import Console, silence_libraries
from pruning.cli.options import (
    add_executor,
    add_model,
    add_task_data,
    checked,
    executor_of,
    load_model,
    own_copy,
    parse_names,
    text_help,
)
from pruning.experiments.base import EXPERIMENTS, Sampling
from pruning.experiments.places import Place
from pruning.experiments.request import (
    Request,
    protocol_for,
    read_texts,
    sampling_of,
    window_length,
)
from pruning.experiments.result import joined
from pruning.experiments.run import run_experiment
from pruning.utils.errors import UsageError
from pruning.utils.files import check_writable


class Reproduce(Command):
    """Every cell once, however often it is started again; files in a folder."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        add = parser.add_argument
        names = ", ".join(EXPERIMENTS.names())
        add("experiment", metavar="EXPERIMENT", help=f"one of: {names}")
        add_model(parser)
        add("--quick", action="store_true", help="minutes on two cores: less text, fewer samples")
        add("--out", metavar="DIR", help="folder of the files (default: out/EXPERIMENT)")
        texts = f"perplexity on each: {text_help()}, also NAME=PATH"
        add("--texts", type=parse_names, metavar="A,B,...", help=texts)
        add("--windows", type=int, metavar="N", help="first N windows of each text")
        add("--calibration", metavar="SRC", help=text_help())
        add_task_data(parser)
        add("--no-tasks", action="store_true", help="perplexity only")
        also = "further models, for figures that compare models (figure3, figure5)"
        add("--also", type=parse_names, default=(), metavar="A,B,...", help=also)
        add("--seed", type=int, default=0, metavar="N")
        add_executor(parser)

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        experiment, executor = EXPERIMENTS[arguments.experiment], executor_of(arguments)
        out = Path(arguments.out or f"out/{experiment.name}").expanduser()
        check_writable(out / f"{experiment.name}.json")
        request = _request(arguments)
        sampling, protocol = sampling_of(experiment, request), protocol_for(experiment, request)
        measures = experiment.only_measures
        if arguments.also and not measures:
            raise UsageError(f"{experiment.name} is of one model; leave --also out.")
        if measures and not executor.works_here:
            raise UsageError(f"{experiment.name} has no cells; leave --executor out.")
        models = [Namespace(**{**vars(arguments), "model": also}) for also in arguments.also]
        models = [arguments, *models]
        recipes = [_largest(each, sampling, request) for each in models]
        for each, recipe in zip(models, recipes, strict=True):
            checked(each, recipe, texts=() if measures else protocol.texts, prunes=False)
        read_texts(experiment, request)
        from pruning.pipeline import memory_task

        def say(place: Place, cell: Cell) -> None:
            score = cell.texts[0]
            size = "overflow" if score.perplexity is None else f"{score.perplexity:.3f}"
            console.say("reproduce", f"{place.name}: {score.text} {size} ({cell.seconds:.0f} s)")

        results = []
        for each, recipe in zip(models, recipes, strict=True):
            own = own_copy(each, executor)
            loaded = load_model(own, console, memory_task(recipe), recipe)
            results.append(
                run_experiment(
                    loaded,
                    experiment,
                    request,
                    executor=executor,
                    on_cell=say,
                    progress=console.progress,
                )
            )
            del loaded  # one model at a time
        result = joined(results)
        files = result.write(out)
        names, rows = result.table()
        return {
            **result.as_dict(),
            "heading": result.heading,
            "files": [str(path) for path in files],
            "table": [dict(zip(names, row, strict=True)) for row in rows],
        }

    def text(self, result: Mapping[str, Any]) -> str:
        rows = result["table"]
        columns = list(rows[0]) if rows else []
        parts = [result["heading"], table(rows, columns) if rows else "No row."]
        parts.append("\n".join(remark for remark in result["remarks"] if remark))
        return "\n\n".join([*parts, "\n".join(result["files"])])


def _request(arguments: Namespace) -> Request:
    return Request(
        quick=arguments.quick,
        texts=arguments.texts,
        calibration=arguments.calibration,
        windows=arguments.windows,
        task_data=arguments.task_data,
        tasks=not arguments.no_tasks,
        limit=arguments.limit,
        seed=arguments.seed,
    )


def _largest(arguments: Namespace, sampling: Sampling, request: Request) -> Recipe:
    """A recipe that takes as much text and memory as any row does."""
    silence_libraries()
    from pruning.models.loading.outline import outline

    dtype = arguments.dtype or "float32"
    shape = outline(arguments.model, arguments.revision, dtype).shape
    return Recipe().changed(
        model={"source": arguments.model, "revision": arguments.revision, "dtype": dtype},
        calibration={
            "source": sampling.calibration,
            "seq_len": window_length(arguments.model, shape, sampling, request),
            "samples": max(sampling.samples, sampling.recovery_samples or 0),
        },
        recovery={"copies": 0},
    )


COMMANDS.add(
    "reproduce",
    Reproduce(),
    title="Reproduce",
    summary="a table or figure of the paper, for any model",
    source="",
    place=45,
)
