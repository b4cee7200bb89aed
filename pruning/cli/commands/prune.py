"""``prune``: prune, recover, evaluate for the card, save."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.artifacts.provenance import Provenance
from pruning.checkpoint.forms import check_handoff
from pruning.cli.base import COMMANDS, Command
from pruning.cli.console import Console
from pruning.cli.options import (
    add_calibration,
    add_decisions,
    add_form,
    add_handoff,
    add_model,
    checked,
    load_model,
    preset_help,
    shared,
)
from pruning.cli.recipe import recipe_from
from pruning.distributed.ranks import Ranks
from pruning.utils.errors import HeadroomError, Unsupported, UsageError, described

if TYPE_CHECKING:
    from pruning.checkpoint.parts import Parts
    from pruning.checkpoint.records import Evaluation
    from pruning.surgery.result import PruneRun


class Prune(Command):
    """The whole way from a model to a folder, or to one file."""

    shares_work = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_model(parser)
        add_calibration(parser)
        add = parser.add_argument
        add("--preset", metavar="NAME", help=f"a whole method, {preset_help()}")
        add_decisions(parser)
        add("--out", required=True, metavar="DIR", help="folder for the pruned model")
        add_form(parser, default="compact")
        add_handoff(parser)
        add(
            "--evaluate",
            default="sample",
            metavar="SRC",
            help="text for the card's perplexity, or 'none' (default: sample)",
        )
        add("--evaluate-windows", type=int, default=16, metavar="N", help="its windows (16)")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any] | None:
        with shared(arguments) as ranks:
            run, before = _pruned(arguments, console, ranks)
        if not ranks.is_first:
            return None
        from pruning.checkpoint import parts_of

        out = Path(arguments.out)
        for remark in run.plan.remarks:
            console.say("prune", remark)
        if run.check is not None and run.check.kept == "plain":
            console.warn(run.check.sentence())
        if run.report.tuning is not None:
            said = run.report.tuning.sentence()
            if run.report.tuning.kept == "tuned":
                console.say("tune", said)
            else:
                console.warn(said)
        if run.report.kept_block_parameters == 1.0:
            console.warn("The recipe removes nothing, so this is a copy; give --keep or a ratio.")
        evaluation = _evaluation(run, arguments, console)
        parts = parts_of(run, evaluation)
        if before is not None:
            _warn_of_differences(before, parts.records.provenance, console)
        for remark in _write(parts, out, arguments):
            console.warn(remark)
        result = {"out": str(out), "form": arguments.form}
        if evaluation is not None:
            result |= {
                "perplexity_before": evaluation.before,
                "perplexity_after": evaluation.after,
                "protocol": evaluation.protocol,
            }
        return {**result, **run.report.as_dict()}


def _pruned(
    arguments: Namespace, console: Console, ranks: Ranks
) -> tuple[PruneRun, Provenance | None]:
    """The run, and where the recipe came from."""
    with ranks.together():
        recipe = recipe_from(arguments)
        before = Provenance.read(Path(arguments.recipe)) if arguments.recipe else None
        if arguments.handoff:
            check_handoff(arguments.form)
        if recipe.tune.method != "none" and ranks.size > 1:
            raise UsageError(
                "Training after the cut works in one process: leave out torchrun or --tune."
            )
        texts = () if arguments.evaluate == "none" else (arguments.evaluate,)
        more = {"out": Path(arguments.out), "form": arguments.form, "texts": texts}
        forecast = checked(arguments, recipe, ranks=ranks, **more)
        from pruning.pipeline import memory_task, prune

        loaded = load_model(arguments, console, memory_task(recipe), recipe, ranks)
    shape = forecast.outline.shape
    for reason in (*shape.fixed.values(), *shape.whole):
        console.say("prune", reason)
    return prune(loaded, recipe, progress=console.progress), before


def _write(parts: Parts, out: Path, arguments: Namespace) -> tuple[str, ...]:
    """Save in the form asked for. The run may have taken hours: what cannot be saved so is kept in
    another form or place, which the error names."""
    from pruning.checkpoint import FormOptions, write
    from pruning.checkpoint.saving import rescue

    try:
        options = FormOptions(gguf_type=arguments.gguf_type, handoff=arguments.handoff)
        return write(parts, out, arguments.form, options)
    except Exception as error:
        kept = rescue(parts, out, arguments.form)
        said = str(error) if isinstance(error, HeadroomError) else f"{described(error)}."
        kind = type(error) if isinstance(error, Unsupported) else HeadroomError
        raise kind(f"{said} {kept}") from error


def _evaluation(run: PruneRun, arguments: Namespace, console: Console) -> Evaluation | None:
    """Perplexities for the card. A text that does not fit the model must not cost the run."""
    from pruning.api import PrunedModel

    if arguments.evaluate == "none" or run.dense.tokenizer is None:
        return None
    how = {"windows": arguments.evaluate_windows, "progress": console.progress}
    try:
        return PrunedModel(run).evaluate(arguments.evaluate, **how).evaluation
    except Exception as error:  # the model that is there counts more than its number
        said = error if isinstance(error, HeadroomError) else described(error)
        console.warn(f"the card has no perplexity: {said}")
        return None


def _warn_of_differences(then: Provenance, now: Provenance | None, console: Console) -> None:
    differences = then.differences(now)
    if differences:
        console.warn(
            "this run differs from the one that the recipe records in "
            f"{', '.join(differences)}; the tensors may differ too."
        )


COMMANDS.add("prune", Prune(), summary="prune, recover and save", place=20)
