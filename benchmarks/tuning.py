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
from pruning.artifacts.recipe import Recipe
from pruning.data import calibration_windows
from pruning.evaluate import perplexity
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
    texts = (options.text, options.other_text)
    before = [_perplexity(dense, dense, text, options) for text in texts]
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
        ratios = [
            _perplexity(model, dense, text, options) / base
            for text, base in zip(texts, before, strict=True)
        ]
        rate, trained, apart, took_s, passes = cells
        peak = peak_memory_bytes(dense.model.device) >> 20
        print(
            f"| {TUNINGS.entry(method).title} | {rate} | {trained} | {ratios[0]:.3f} | "
            f"{ratios[1]:.3f} | {apart} | {took_s} | {passes} | {peak:,} |",
            flush=True,
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pruned", type=Path, help="a compact folder, instead of pruning")
    parser.add_argument("--preset", default="balanced", choices=PRESETS.names())
    parser.add_argument("--keep", type=float, default=0.8)
    parser.add_argument("--calibration", default="sample", help="corpus or path")
    parser.add_argument("--text", default="sample", help="corpus or path for the perplexity")
    parser.add_argument("--other-text", default="sample", help="text of another kind")
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=["norms", "lora"], choices=TUNINGS.names())
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, help="of all methods, if not their own")
    parser.add_argument("--compute", default="auto", help="recovery.compute")
    return parser.parse_args()


def _recipe(options: argparse.Namespace) -> Recipe:
    calibration = {"source": options.calibration, "samples": options.samples}
    recipe = Recipe.parse(
        {
            "calibration": {**calibration, "seq_len": options.seq_len},
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


def _perplexity(
    side: LoadedModel, dense: LoadedModel, text: str, options: argparse.Namespace
) -> float:
    return perplexity(
        side.model, dense.tokenizer, text, seq_len=options.seq_len, windows=options.windows
    ).perplexity


if __name__ == "__main__":
    main()
