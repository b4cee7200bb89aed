"""Commands that write a pruned model: prune, export, push."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.artifacts.provenance import Provenance
from pruning.cli.common import load_model, show, warn
from pruning.utils.errors import HeadroomError, Unsupported

if TYPE_CHECKING:
    from pruning.checkpoint import Evaluation
    from pruning.surgery.result import PruneRun


def prune(arguments: Any, recipe: Any) -> dict[str, Any]:
    """Prune, evaluate for the card, save in the form asked for."""
    from pruning.checkpoint import FormOptions, parts_of, write
    from pruning.checkpoint.saving import check_target
    from pruning.pipeline import memory_task
    from pruning.pipeline import prune as run_prune

    out, form = Path(arguments.out), arguments.form
    check_target(out, form)
    before = Provenance.read(Path(arguments.recipe)) if arguments.recipe else None
    arguments.revision = recipe.model.revision
    loaded = load_model(arguments, recipe.model.dtype, memory_task(recipe))
    shape = loaded.adapter.model_shape(loaded.model)
    for reason in (*shape.fixed.values(), *shape.whole):
        sys.stderr.write(f"[prune] {reason}\n")
    run = run_prune(loaded, recipe, progress=show)
    evaluation = _evaluation(run, arguments)
    parts = parts_of(run, evaluation)
    if before is not None:
        _tell_differences(before, parts.records.provenance)
    try:
        remarks = write(parts, out, form, FormOptions(gguf_type=arguments.gguf_type))
    except Unsupported as error:
        # the run may have taken hours: keep it in the form that holds every model
        kept = out.with_suffix("") if out.suffix == ".gguf" else out
        check_target(kept)
        write(parts, kept)
        raise Unsupported(f"{error} The compact form was written to {kept} instead.") from None
    _tell(remarks)
    found = (
        {}
        if evaluation is None
        else {
            "perplexity_before": evaluation.before,
            "perplexity_after": evaluation.after,
            "protocol": evaluation.protocol,
        }
    )
    return {"out": str(out), "form": form, **found, **run.report.as_dict()}


def export(arguments: Any, _recipe: Any) -> dict[str, Any]:
    """Write a compact folder in another form."""
    from pruning.checkpoint import FormOptions
    from pruning.checkpoint import export as write_again

    out = Path(arguments.out)
    options = FormOptions(gguf_type=arguments.gguf_type)
    remarks = write_again(
        Path(arguments.folder),
        out,
        arguments.form,
        options=options,
        dtype=arguments.dtype or "auto",
    )
    _tell(remarks)
    files = [out] if out.is_file() else sorted(file for file in out.rglob("*") if file.is_file())
    return {
        "out": str(out),
        "form": arguments.form,
        "bytes": sum(file.stat().st_size for file in files),
        "remarks": list(remarks),
    }


def push(arguments: Any, _recipe: Any) -> dict[str, Any]:
    """Upload a saved folder."""
    from pruning.checkpoint.hub import push as upload

    url = upload(Path(arguments.folder), arguments.repository, private=arguments.private)
    return {"url": url}


def _evaluation(run: PruneRun, arguments: Any) -> Evaluation | None:
    """Perplexities for the card. A text that does not fit the model must not cost the run."""
    from pruning.checkpoint import Evaluation
    from pruning.evaluate import perplexity

    source = arguments.evaluate
    if source == "none" or run.dense.tokenizer is None:
        return None
    length = min(128, run.plan.shape.max_positions)
    try:
        before, after = (
            perplexity(
                side.model,
                side.tokenizer,
                source,
                seq_len=length,
                windows=arguments.evaluate_windows,
                progress=show,
            )
            for side in (run.dense, run.pruned)
        )
    except HeadroomError as error:
        warn(f"the card has no perplexity: {error}")
        return None
    if not math.isfinite(before.perplexity) or not math.isfinite(after.perplexity):
        warn("the perplexity overflows, so the card has none: prune less, or with recovery.")
        return None
    return Evaluation(before.perplexity, after.perplexity, after.protocol())


def _tell_differences(then: Provenance, now: Provenance) -> None:
    found = then.differences(now)
    if found:
        warn(
            f"this run differs from the one that the recipe records in {', '.join(found)}; the "
            "tensors may differ too."
        )


def _tell(remarks: tuple[str, ...]) -> None:
    for remark in remarks:
        warn(remark)
