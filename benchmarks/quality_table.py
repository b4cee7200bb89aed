"""The rows of ``benchmarks.quality``, and the table that is made of them."""

from __future__ import annotations

import argparse
import itertools
import statistics

from pruning.presets import PRESETS

FIELDS = (
    "method",
    "setting",
    "cost",
    "kept",
    "samples",
    "seed",
    "block_parameters",
    "ratio",
    "other_ratio",
    "perplexity",
    "other_perplexity",
    "needs",
    *(
        f"{part}_{unit}"
        for unit in ("seconds", "work")
        for part in ("measure", "measure_solves", "prune", "prune_solves", "dense")
    ),
    "peak_mib",
)
"""Of a row; of a part both the seconds that passed and its work: CPU seconds, or on a card as
``seconds``."""


def print_table(rows: list[dict], options: argparse.Namespace) -> None:
    """Print one row per size, method and setting, of means over the seeds."""
    print(
        f"{options.model}: {options.samples} x {options.seq_len} calibration tokens of "
        f"{options.calibration}; evaluated on the first {options.windows} x {options.seq_len} "
        f"tokens of {options.text}, {options.other_text}; seeds {options.seeds}"
        f"{'; all heads kept' if options.spare_heads else ''}\n"
    )
    print(
        "| block parameters | method | setting | cost | perplexity / dense | other text / dense | "
        "kept | measure s | prune s | of both solves | the rest / dense pass | peak MiB |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for kept in options.kept:
        for method, setting in itertools.product(options.methods, options.settings):
            same = [
                r
                for r in rows
                if (r["method"], r["setting"], float(r["kept"])) == (method, setting, kept)
            ]
            if not same:
                continue
            measuring, solves = (
                _measuring(rows, same, f"measure{part}_seconds") for part in ("", "_solves")
            )
            solves += _mean(same, "prune_solves_seconds")
            print(
                f"| {kept:.0%} | {PRESETS.entry(method).title} | {setting} | {same[0]['cost']} | "
                f"{_spread(same, 'ratio')} | "
                f"{_spread(same, 'other_ratio')} | {_mean(same, 'block_parameters'):.1%} | "
                f"{measuring:.0f} | {_mean(same, 'prune_seconds'):.0f} | {solves:.0f} | "
                f"{_passes(rows, same):.1f} | "
                f"{_mean(same, 'peak_mib'):,.0f} |"
            )


def _passes(rows: list[dict], same: list[dict]) -> float:
    """The work outside the solves, in dense passes."""
    work = _measuring(rows, same, "measure_work") + _mean(same, "prune_work")
    solves = _measuring(rows, same, "measure_solves_work") + _mean(same, "prune_solves_work")
    return (work - solves) / _mean(same, "dense_work")


def _measuring(rows: list[dict], same: list[dict], name: str) -> float:
    """Mean over the seeds: the plain measurement, and what the method needs beside it. The
    first method that needs a part measures it, the others read it from the cache."""
    seconds = []
    for row in same:
        alike = [r for r in rows if r["seed"] == row["seed"]]
        parts = {"", row["needs"]}
        seconds.append(
            sum(
                max((float(r[name]) for r in alike if r["needs"] == part), default=0.0)
                for part in parts
            )
        )
    return statistics.mean(seconds)


def _mean(rows: list[dict], name: str) -> float:
    return statistics.mean(float(row[name]) for row in rows)


def _spread(rows: list[dict], name: str) -> str:
    values = [float(row[name]) for row in rows]
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"
