"""``python -m benchmarks.quality``: every preset at every size, on two kinds of text.

For each method and size: perplexity over that of the dense model on the evaluation text and on
held-out text of another kind (mean and spread over the seeds), block parameters really kept,
seconds of measuring, of cutting and recovery and of the solves in both, what is outside the solves
as a multiple of one dense forward pass over the calibration tokens, and peak memory. That multiple
is one of ``work``: the CPU seconds of the process, which nothing else on the machine adds to (of a
card, the seconds that pass). Each run has a process of its own; methods that need the same
measurement of a seed share it, and each is charged for all of it. A Markdown table on stdout, one
row per run in the CSV file.

``--settings own`` shows each method as its authors would run it, beside the ``same`` for all: the
first four and the last two blocks left alone, gradients on the whole calibration text, the bias
that FLAP's code adds to Wanda-sp. Methods that choose where to cut by themselves have no such row.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.forward import dense_pass, finish
from benchmarks.options import add_texts, calibration, parser, perplexities
from benchmarks.quality_table import FIELDS, print_table
from pruning.artifacts.recipe import Recipe
from pruning.evaluate.speed import peak_memory_bytes
from pruning.measure.passes import run_passes
from pruning.measure.windows import windows_for
from pruning.models.loading import load
from pruning.pipeline import measuring_passes, prune
from pruning.planning.planner import needs_gradients, needs_loss_curves
from pruning.presets import PRESETS, with_preset
from pruning.presets.base import cost_of
from pruning.utils.stopwatch import Stopwatch

ENDS_SPARED = {"blocks": {"start": 4, "end": -2}}
"""The paper prunes [4, 30) of LLaMA-7B's 32 blocks, LLM-Pruner nearly the same."""

OWN: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(("paper", "second_moment", "l1", "l2", "random"), ENDS_SPARED),
    **dict.fromkeys(
        ("llm_pruner_vector", "llm_pruner_element1", "llm_pruner_element2"),
        {**ENDS_SPARED, "calibration": {"gradient_samples": None, "gradient_seq_len": None}},
    ),
    "wanda_sp": {**ENDS_SPARED, "recovery": {"method": "bias", "intercept": "add", "copies": 0}},
}
"""Sections of a recipe that differ from the preset; an ``end`` counts from the last block, and None
means as for the measurement."""


def main() -> None:
    """Run the benchmark, or (with ``--one``) a single method and seed for it."""
    options = _options()
    if options.one:
        return _one(options)
    loaded = load(options.model, dtype="float32", device=options.device)
    dense = perplexities(loaded.model, loaded.tokenizer, options)
    del loaded
    rows = []
    with (
        tempfile.TemporaryDirectory() as caches,
        open(options.csv, "w", newline="", encoding="utf-8") as file,
    ):
        table = csv.DictWriter(file, FIELDS)
        table.writeheader()
        for seed in options.seeds:
            cache = Path(caches) / str(seed)
            for kept in options.kept:
                for setting, method in _runs(options, kept, seed):
                    row = _in_its_own_process(options, dense, cache, method, kept, seed, setting)
                    rows.append(row)
                    table.writerow(row)
                    file.flush()
    print_table(rows, options)


def _options() -> argparse.Namespace:
    made = parser(__doc__)
    add_texts(made)
    made.add_argument("--kept", type=float, nargs="+", default=[0.8], help="of the blocks")
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--methods", nargs="+", default=PRESETS.names(), choices=PRESETS.names())
    made.add_argument("--settings", nargs="+", default=["same"], choices=("same", "own"))
    made.add_argument("--compute", help="recovery.compute for all methods, if not their own")
    made.add_argument("--spare-heads", action="store_true", help="take FFN channels only")
    made.add_argument("--csv", default="quality.csv")
    made.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    made.add_argument("--cache", help=argparse.SUPPRESS)
    made.add_argument("--dense", nargs=2, type=float, help=argparse.SUPPRESS)
    return made.parse_args()


def _runs(options: argparse.Namespace, kept: float, seed: int) -> list[tuple[str, str]]:
    """Settings and methods of one size and seed, plain measurements first: what is added to them is
    timed apart."""
    every = [(s, m) for s in options.settings for m in options.methods if s == "same" or m in OWN]
    return sorted(every, key=lambda run: _needs(_recipe(options, run[1], kept, seed, run[0], 30)))


def _recipe(
    options: argparse.Namespace, method: str, kept: float, seed: int, setting: str, blocks: int
) -> Recipe:
    """The recipe of a run on a model of so many ``blocks``."""
    budget = {"kept": kept, "spare_heads": options.spare_heads}
    recipe = Recipe.parse({"calibration": calibration(options), "budget": budget, "seed": seed})
    recipe = with_preset(recipe, method)
    if setting == "own":
        changes = {section: dict(fields) for section, fields in OWN[method].items()}
        changes["blocks"]["end"] += blocks
        if "calibration" in changes:
            changes["calibration"] = {
                "gradient_samples": options.samples,
                "gradient_seq_len": options.seq_len,
            }
        recipe = recipe.changed(**changes)
    return recipe.changed(recovery={"compute": options.compute}) if options.compute else recipe


def _needs(recipe: Recipe) -> str:
    """What a measurement for ``recipe`` needs beside the plain one ("" when nothing)."""
    rule = recipe.calibration
    gradients = f"gradients on {rule.gradient_samples} x {rule.gradient_seq_len}"
    passes = {"loss curves": needs_loss_curves(recipe), gradients: needs_gradients(recipe)}
    return ", ".join(name for name, needed in passes.items() if needed)


def _in_its_own_process(
    options: argparse.Namespace,
    dense: list[float],
    cache: Path,
    method: str,
    kept: float,
    seed: int,
    setting: str,
) -> dict:
    """Peak memory belongs to a process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "row.csv"
        command = [sys.executable, "-m", "benchmarks.quality", "--csv", str(path)]
        command += ["--one", method, str(kept), str(seed), setting]
        command += ["--dense", *map(str, dense)]
        command += ["--cache", str(cache), *(["--spare-heads"] if options.spare_heads else [])]
        command += ["--compute", options.compute] if options.compute else []
        for name in (
            "model",
            "device",
            "calibration",
            "text",
            "other_text",
            "windows",
            "samples",
            "seq_len",
        ):
            command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
        subprocess.run(command, check=True)
        with path.open(newline="", encoding="utf-8") as file:
            row = next(csv.DictReader(file))
    print({name: row[name] for name in FIELDS[:7]}, file=sys.stderr, flush=True)
    return row


def _one(options: argparse.Namespace) -> None:
    method, kept, seed = options.one[0], float(options.one[1]), int(options.one[2])
    setting = options.one[3]
    loaded = load(options.model, dtype="float32", device=options.device)
    # the model may come from the user's cache, measurements may not
    os.environ["HEADROOM_CACHE"] = options.cache
    blocks = len(loaded.adapter.blocks(loaded.model))
    recipe = _recipe(options, method, kept, seed, setting, blocks)
    ids, device = windows_for(loaded, recipe).ids, loaded.model.device
    clock = partial(_now, device)
    passes, solves = [dense_pass(loaded, ids, clock)], Stopwatch()
    began = clock()
    measurement = run_passes(measuring_passes(loaded, recipe, solving=solves))
    measured = clock()
    # a row is what the method does, even where doing nothing would be better
    as_it_is = recipe.changed(recovery={"keep_better": False})
    with _stopwatches() as surgery:
        run = prune(loaded, as_it_is, measurement=measurement)
    pruned = clock()
    peak = peak_memory_bytes(device)
    passes.append(dense_pass(loaded, ids, clock))
    spent = {
        "measure": measured - began,
        "measure_solves": _solving([solves], device),
        "prune": pruned - measured,
        "prune_solves": _solving(surgery, device),
        "dense": np.mean(passes, 0),
    }
    dense = options.dense
    after = perplexities(run.pruned.model, loaded.tokenizer, options)
    row = {
        "method": method,
        "setting": setting,
        "cost": cost_of(recipe),
        "kept": kept,
        "samples": options.samples,
        "seed": seed,
        "block_parameters": run.report.kept_block_parameters,
        "ratio": after[0] / dense[0],
        "other_ratio": after[1] / dense[1],
        "perplexity": after[0],
        "other_perplexity": after[1],
        "needs": _needs(recipe),
        **{f"{name}_seconds": seconds for name, (seconds, _) in spent.items()},
        **{f"{name}_work": work for name, (_, work) in spent.items()},
        "peak_mib": peak / 2**20,
    }
    with open(options.csv, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, FIELDS)
        table.writeheader()
        table.writerow(row)


def _now(device: torch.device) -> np.ndarray:
    """The time, and the work until then."""
    finish(device)
    passed = time.perf_counter()
    return np.array([passed, time.process_time() if device.type == "cpu" else passed])


def _solving(watches: list[Stopwatch], device: torch.device) -> np.ndarray:
    work = "cpu_seconds" if device.type == "cpu" else "seconds"
    return np.array([sum(getattr(w, unit) for w in watches) for unit in ("seconds", work)])


@contextmanager
def _stopwatches() -> Iterator[list[Stopwatch]]:
    """Those that the surgery makes meanwhile, for its events keep no CPU seconds."""
    made: list[Stopwatch] = []

    def one() -> Stopwatch:
        made.append(Stopwatch())
        return made[-1]

    with mock.patch("pruning.surgery.apply.Stopwatch", one):
        yield made


if __name__ == "__main__":
    main()
