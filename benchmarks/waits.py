"""``python -m benchmarks.waits``: how often the engine waits for a device, batch by batch.

Tiny models on the pretended accelerator of the tests, which counts every question that a real one
would have to finish its work for. Printed are the waits per batch and block (what twice as many
windows cost more) of each pass, and all waits of a prune of 16 windows.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

from pruning.models.execution import blockwise
from pruning.pipeline import measure_model, prune
from tests.helpers import families
from tests.helpers.on_device import CUT, KINDS, moved
from tests.helpers.virtual_device import virtual_device

FAMILIES = ("llama_grouped", "gpt2", "mixtral")
WINDOWS = 8
PASSES: dict[str, dict[str, Any]] = {
    "measure": {},
    "gradients": {"gradients": True},
    "loss curves": {"loss_curves": True},
}


def main() -> None:
    """Print a Markdown table."""
    blockwise.TOKENS_PER_BATCH = 4 * families.recipe().calibration.seq_len
    print(f"| device | family | {' | '.join(PASSES)} | a prune |")
    print("|---|---|" + "---|" * (len(PASSES) + 1))
    for kind in KINDS:
        for family in FAMILIES:
            with TemporaryDirectory() as folder:
                os.environ["HEADROOM_CACHE"] = folder
                cells = [_per_batch(family, kind, name) for name in PASSES]
                cells.append(str(_waits(family, kind, 2 * WINDOWS, "measure", True).total()))
            print(f"| {kind} | {family} | {' | '.join(cells)} |", flush=True)


def _per_batch(family: str, kind: str, name: str) -> str:
    if name == "gradients" and family == "mixtral":
        return "–"  # refused
    few, many = (_waits(family, kind, n, name).total() for n in (WINDOWS, 2 * WINDOWS))
    return f"{(many - few) / (WINDOWS // 4 * families.BLOCKS):.1f}"


def _waits(family: str, kind: str, windows: int, name: str, prunes: bool = False) -> Counter[str]:
    """By line of the engine, of one pass alone or of a prune from a measurement."""
    short = {"samples": windows, "gradient_samples": windows, "gradient_seq_len": 16}
    recipe = families.recipe(**{f"calibration__{key}": value for key, value in short.items()})
    with virtual_device(kind) as waits:
        loaded = replace(moved(family, kind), identity=f"{kind}-{family}-{windows}-{name}")
        if PASSES[name] or prunes:  # what it adds to
            measured = measure_model(loaded, recipe)
            waits.clear()
        if prunes:
            prune(
                loaded, families.recipe(**CUT, calibration__samples=windows), measurement=measured
            )
        else:
            measure_model(loaded, recipe, **PASSES[name])
        return Counter(waits)


if __name__ == "__main__":
    main()
