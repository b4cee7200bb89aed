"""Arguments that several commands share, and how their values are read."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pruning.artifacts.events import Progress
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.rules import Bos
from pruning.checkpoint.gguf.types import GGUF_TYPES
from pruning.cli.console import Console, silence_libraries
from pruning.distributed.ranks import ALONE, Ranks, world_size
from pruning.registries import (
    ALLOCATIONS,
    CORPORA,
    CRITERIA,
    EXECUTORS,
    FORMS,
    HEAD_POLICIES,
    PRESETS,
    RECOVERIES,
    TUNINGS,
)
from pruning.utils.errors import UsageError

if TYPE_CHECKING:
    from pruning.experiments.executors.base import Executor
    from pruning.models.loading.loaded import LoadedModel
    from pruning.models.loading.sizes import Task
    from pruning.preflight import Forecast

PLACEMENT_HELP = (
    "where blocks that are not in use wait: whole (on the device), spread (over all cards), memory "
    "(CPU memory) or disk; auto (default) takes the first of these that fits"
)

DTYPE_HELP = (
    "auto (as stored), float32, bfloat16 or float16, to compute and save in; without it a prune "
    "computes in float32 and saves as the source is stored, other commands take auto"
)


def text_help() -> str:
    """What an option that names a text takes."""
    return f"corpus ({', '.join(CORPORA.names())}) or a path"


def add_model(parser: ArgumentParser) -> None:
    """The model, and how it is loaded."""
    parser.add_argument("model", metavar="MODEL", help="'demo', a hub id, a folder or a .gguf file")
    parser.add_argument("--revision", help="hub revision")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--dtype", help=DTYPE_HELP)
    parser.add_argument("--placement", default="auto", metavar="WHERE", help=PLACEMENT_HELP)


def add_calibration(parser: ArgumentParser) -> None:
    """The calibration set of the recipe."""
    parser.add_argument("--calibration", metavar="SRC", help=text_help())
    add_reading(parser)
    parser.add_argument("--samples", type=int, metavar="N", help="calibration windows")
    parser.add_argument("--seq-len", type=int, metavar="N", help="tokens per window")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of everything that is sampled")


def add_reading(parser: ArgumentParser) -> None:
    """How that text is read."""
    parser.add_argument("--text-field", metavar="NAME", help="column of a JSON or parquet file")
    parser.add_argument(
        "--bos",
        choices=get_args(Bos),
        help="what a BOS token leads (auto: every window, where the tokenizer adds one)",
    )


def add_decisions(parser: ArgumentParser) -> None:
    """What the recipe decides: how much is removed, by which criterion, with which recovery.

    Names are taken as they are: the recipe refuses an unknown one with the list.
    """
    add = parser.add_argument
    add("--recipe", metavar="RECIPE.yaml", help="a recipe; the other options override it")
    add("--keep", type=float, metavar="K", help="share of the block parameters to keep")
    add("--megabytes", type=float, metavar="MB", help="largest size of the whole model")
    add("--spare-heads", action="store_true", default=None, help="remove FFN channels only")
    add("--allocation", metavar="NAME", help=_one_of(ALLOCATIONS.names()))
    add("--multiple", type=int, metavar="N", help="round FFN widths to a multiple of N")
    add("--head-threshold", type=float, metavar="TAU", help="similarity threshold in nats")
    add("--head-ratio", type=float, metavar="R", help="share of heads to remove in each block")
    policies = _one_of(HEAD_POLICIES.names())
    add("--head-policy", metavar="NAME", help=f"for grouped queries, {policies}")
    criteria = _one_of(CRITERIA.names())
    add("--head-score", metavar="NAME", help=f"criterion for heads, {criteria}")
    add("--ffn-ratio", type=float, metavar="R", help="share of FFN channels to remove")
    add("--ffn-score", metavar="NAME", help="criterion for FFN channels, like --head-score")
    add("--blocks", metavar="START:END", help="only blocks [START, END) are pruned")
    add("--recovery", metavar="NAME", help=_one_of(RECOVERIES.names()))
    add("--tune", metavar="NAME", help=f"training after the cut, {_one_of(TUNINGS.names())}")
    add("--tune-epochs", type=int, metavar="N", help="how often that reads each window (1)")


def add_form(parser: ArgumentParser, default: str | None = None) -> None:
    """The form to save in; required without a default."""
    parser.add_argument(
        "--form",
        required=default is None,
        default=default,
        metavar="NAME",
        help=_one_of(FORMS.names()),
    )
    parser.add_argument("--gguf-type", default="f16", choices=GGUF_TYPES, help="with --form gguf")


def add_handoff(parser: ArgumentParser) -> None:
    """Whether a training script is written as well."""
    parser.add_argument(
        "--handoff",
        action="store_true",
        help="write a training script (TRL, PEFT) with its settings beside the model",
    )


def add_task_data(parser: ArgumentParser) -> None:
    """Where the rows of zero-shot tasks come from, and how many are taken."""
    parser.add_argument(
        "--task-data",
        metavar="DIR",
        default=os.environ.get("HEADROOM_TASK_DATA"),
        help="folder of NAME.jsonl (default: HEADROOM_TASK_DATA, else the hub)",
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="first N items of each task (default all)"
    )


def add_executor(parser: ArgumentParser) -> None:
    """Where cells are computed."""
    parser.add_argument(
        "--executor",
        default="local",
        metavar="NAME",
        help=f"where cells are computed, {_one_of(EXECUTORS.names())} (default: local)",
    )


def executor_of(arguments: Namespace) -> Executor:
    """The executor that the command names; raises UsageError when it is unknown, or what it needs
    is not installed."""
    executor: Executor = EXECUTORS[arguments.executor](arguments.device, arguments.placement)
    return executor


def own_copy(arguments: Namespace, executor: Executor) -> Namespace:
    """``arguments`` for the model that this process loads: where others load it again to compute,
    its weights stay in their files here."""
    if executor.works_here:
        return arguments
    return Namespace(**{**vars(arguments), "device": "cpu", "placement": "disk"})


@contextmanager
def shared(arguments: Namespace) -> Iterator[Ranks]:
    """The ranks that torchrun started, this process alone without it; each has a card of its own
    where there are cards. Raises UsageError."""
    if world_size() == 1:
        yield ALONE
        return
    from pruning.distributed.torchrun import joined, own_device

    arguments.device = own_device(arguments.device)
    if arguments.placement == "spread":
        raise UsageError("Under torchrun each process has one card; leave --placement spread out.")
    with joined(arguments.device) as ranks:
        yield ranks


def preset_help() -> str:
    """The presets by name."""
    return _one_of(PRESETS.names())


def _one_of(names: list[str]) -> str:
    return f"one of: {', '.join(names)}"


def parse_names(text: str) -> tuple[str, ...]:
    """``A,B,...``"""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_numbers(text: str) -> tuple[float, ...]:
    """``1,2,...``; raises ValueError, which the parser turns into one line."""
    return tuple(float(part) for part in parse_names(text))


def checked(
    arguments: Namespace,
    recipe: Recipe,
    *,
    out: Path | None = None,
    form: str | None = None,
    texts: Sequence[str] = (),
    **more: Any,
) -> Forecast:
    """What a run of ``recipe`` would do; raises HeadroomError, before weights are read, when it
    cannot work. ``more``: what :func:`pruning.preflight.preflight` takes besides."""
    from pruning.preflight import check_request, preflight

    check_request(recipe, out=out, form=form, texts=texts)
    silence_libraries()
    return preflight(
        recipe,
        out=out,
        form=form,
        texts=texts,
        device=arguments.device,
        placement=arguments.placement,
        **more,
    )


def load_model(
    arguments: Namespace,
    console: Console,
    task: Task,
    recipe: Recipe | None = None,
    ranks: Ranks = ALONE,
) -> LoadedModel:
    """The model that the command names, placed so that ``task``, which ``ranks`` share, fits into
    memory; revision and dtype are those of ``recipe`` where there is one."""
    from pruning.models.loading import load

    silence_libraries()
    console.progress(Progress("load", 0, 1, arguments.model))
    loaded = load(
        arguments.model,
        revision=recipe.model.revision if recipe else arguments.revision,
        dtype=recipe.model.dtype if recipe else arguments.dtype or "auto",
        device=arguments.device,
        placement=arguments.placement,
        task=task.shared(ranks),
    )
    how = "" if loaded.placement == "whole" else f", block by block (placement {loaded.placement})"
    console.progress(Progress("load", 1, 1, f"{arguments.model}{how}"))
    return replace(loaded, ranks=ranks)
