"""``python -m benchmarks.prune``: cost of a prune in dense forward passes, and its quality.

Prints one row per recovery: block parameters kept, perplexity over that of the dense model, and
wall time (measuring, cutting, recovery; solves apart) as a multiple of one dense forward pass
over the same calibration text tokens, timed in the same process just before each prune. (The
recovery also passes over the augmentations, ``recovery.copies`` per window.)
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch

from benchmarks.forward import forward_seconds
from benchmarks.options import calibration, parser
from pruning.artifacts.recipe import Recipe
from pruning.evaluate import perplexity
from pruning.measure import measure
from pruning.measure.windows import recovery_windows, windows_for
from pruning.models.loading import load
from pruning.models.loading.loaded import LoadedModel
from pruning.planning import make_plan
from pruning.recovery import RECOVERIES
from pruning.surgery.apply import apply


def main() -> None:
    """Run the benchmark and print a Markdown table."""
    options = _options()
    loaded = load(options.model, dtype="float32", device=options.device)
    dense = perplexity(loaded.model, loaded.tokenizer, options.text, windows=options.windows)
    print(
        f"{options.model} on {loaded.device}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, {options.samples} x {options.seq_len} "
        f"calibration tokens of {options.calibration}, seeds {options.seeds}"
    )
    print(f"dense perplexity {dense.perplexity:.2f}: {dense.protocol()}\n")
    print(
        "| recovery | block parameters kept | perplexity / dense | "
        "measure | prune | of it solves | dense pass (s) |"
    )
    print("|---|---|---|---|---|---|---|")
    for method in options.recovery:
        rows = [_run(loaded, options, method, seed) for seed in options.seeds]
        _print_row(method, rows, dense.perplexity)


def _options() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--text", default="sample", help="corpus or path for the perplexity")
    made.add_argument("--windows", type=int, default=32)
    made.add_argument("--samples", type=int, default=32)
    made.add_argument("--seq-len", type=int, default=128)
    made.add_argument("--ffn-ratio", type=float, default=0.267)
    made.add_argument("--head-ratio", type=float, default=0.0)
    made.add_argument("--copies", type=int, default=3, help="augmentations per window")
    made.add_argument("--seeds", type=int, nargs="+", default=[0])
    made.add_argument("--recovery", nargs="+", default=RECOVERIES.names())
    return made.parse_args()


def _run(loaded: LoadedModel, options: argparse.Namespace, method: str, seed: int) -> dict:
    recipe = Recipe.parse(
        {
            "calibration": calibration(options),
            "heads": {"ratio": options.head_ratio},
            "ffn": {"ratio": options.ffn_ratio},
            "recovery": {"method": method, "copies": options.copies},
            "seed": seed,
        }
    )
    windows = windows_for(loaded, recipe)
    timed = (forward_seconds(loaded.model, loaded.adapter, windows.ids) for _ in range(3))
    forward = statistics.median(timed)
    started = time.perf_counter()
    measurement = measure(loaded.model, windows, name=loaded.source)
    measured = time.perf_counter()
    plan = make_plan(measurement, recipe)
    applied = apply(loaded.model, plan, recipe, recovery_windows(loaded, recipe))
    finished = time.perf_counter()
    after = perplexity(applied.model, loaded.tokenizer, options.text, windows=options.windows)
    print(f"{method}, seed {seed}: perplexity {after.perplexity:.2f}", file=sys.stderr)
    return {
        "kept": plan.kept_block_parameters,
        "perplexity": after.perplexity,
        "forward": forward,
        "measure": (measured - started) / forward,
        "prune": (finished - measured) / forward,
        "solves": sum(event.solve_seconds for event in applied.events) / forward,
    }


def _print_row(method: str, rows: list[dict], dense: float) -> None:
    ratios = [row["perplexity"] / dense for row in rows]
    spread = f" ± {statistics.stdev(ratios):.3f}" if len(ratios) > 1 else ""
    mean = {name: statistics.mean(row[name] for row in rows) for name in rows[0]}
    print(
        f"| {method} | {mean['kept']:.1%} | {statistics.mean(ratios):.3f}{spread} "
        f"| {mean['measure']:.1f} x | {mean['prune']:.1f} x | {mean['solves']:.1f} x "
        f"| {mean['forward']:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
