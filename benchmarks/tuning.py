"""``python -m benchmarks.tuning``: what training after the cut adds, and what it costs.

One model is pruned (or a compact folder is read, ``--pruned``), then trained by
each method on the recipe's calibration windows. For each: how many numbers are trained, perplexity
over that of the dense model on two texts, the divergence from the dense model on held-out windows,
seconds of the training as a multiple of one dense forward pass over the calibration tokens, and
peak memory of the process so far. A Markdown table on stdout.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.forward import dense_pass
from benchmarks.options import add_texts, calibration, parser, perplexities
from pruning.artifacts.recipe import Recipe
from pruning.data import calibration_windows
from pruning.evaluate.speed import peak_memory_bytes
from pruning.measure.windows import recovery_windows
from pruning.models.loading import LoadedModel, load
from pruning.pipeline import prune
from pruning.presets import PRESETS, with_preset
from pruning.recovery.base import held_out_of
from pruning.tuning import TUNINGS
from pruning.tuning.training.stage import tune


def main() -> None:
    """Prune or read, train by each method, print the table."""
    options = _options()
    recipe = _recipe(options)
    dense = load(options.model, dtype="float32", device=options.device)
    pruned = _pruned(options, dense, recipe)
    before = perplexities(dense.model, dense.tokenizer, options)
    ids = recovery_windows(dense, recipe).ids
    held_out = calibration_windows(
        options.calibration,
        dense.model,
        dense.tokenizer,
        options.samples,
        options.seq_len,
        recipe.seed,
        held_out=held_out_of(recipe),
    ).ids
    one_pass = dense_pass(dense, ids)
    print("| method | learning rate | trained | perplexity / dense | other text / dense | ", end="")
    print("divergence, held out | training s | / dense pass | peak MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for method in ["none", *options.methods]:
        model, cells = pruned, ["", "0", "", "", ""]
        if method != "none":
            chosen = recipe.changed(tune={"method": method})
            started = time.perf_counter()
            model, report = tune(dense, pruned, chosen, ids, held_out)
            took = time.perf_counter() - started
            cells = [
                f"{report.learning_rate:g}",
                f"{report.parameters:,}",
                f"{report.untuned:.3f} → {report.tuned:.3f}",
                f"{took:.0f}",
                f"{took / one_pass:.1f}",
            ]
        after = perplexities(model.model, dense.tokenizer, options)
        ratios = [a / b for a, b in zip(after, before, strict=True)]
        rate, trained, apart, took_s, passes = cells
        peak = peak_memory_bytes(dense.model.device) >> 20
        print(
            f"| {TUNINGS.entry(method).title} | {rate} | {trained} | {ratios[0]:.3f} | "
            f"{ratios[1]:.3f} | {apart} | {took_s} | {passes} | {peak:,} |",
            flush=True,
        )


def _options() -> argparse.Namespace:
    made = parser(__doc__)
    add_texts(made, samples=256)
    made.add_argument("--pruned", type=Path, help="a compact folder, instead of pruning")
    made.add_argument("--preset", default="balanced", choices=PRESETS.names())
    made.add_argument("--keep", type=float, default=0.8)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--methods", nargs="+", default=["norms", "lora"], choices=TUNINGS.names())
    made.add_argument("--epochs", type=int, default=1)
    made.add_argument("--batch", type=int, default=2)
    made.add_argument("--rank", type=int, default=16)
    made.add_argument("--learning-rate", type=float, help="of all methods, if not their own")
    made.add_argument("--compute", default="auto", help="recovery.compute")
    return made.parse_args()


def _recipe(options: argparse.Namespace) -> Recipe:
    recipe = Recipe.parse(
        {
            "calibration": calibration(options),
            "budget": {"kept": options.keep},
            "seed": options.seed,
        }
    )
    rule = {"epochs": options.epochs, "batch": options.batch, "rank": options.rank}
    rate = options.learning_rate or "auto"
    return with_preset(recipe, options.preset).changed(
        recovery={"compute": options.compute}, tune={**rule, "learning_rate": rate}
    )


def _pruned(options: argparse.Namespace, dense: LoadedModel, recipe: Recipe) -> LoadedModel:
    if options.pruned is None:
        return prune(dense, recipe).pruned
    read = load(str(options.pruned), dtype="float32", device=options.device)
    return replace(dense, model=read.model, identity=read.identity)


if __name__ == "__main__":
    main()
