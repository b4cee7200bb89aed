"""``python -m benchmarks.inference``: is the saved model really faster and smaller?

One process builds the dense and the pruned models, with widths as planned and with widths rounded
down to a multiple, and times them by turns: prefill and decode tokens per second at batch 1 and 8,
bytes of the weights, and peak memory (each model's own, in a process of its own on the CPU).
The weights are sliced and not repaired: repair changes no shape, so no speed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from benchmarks.forward import finish
from benchmarks.options import parser
from pruning.artifacts.plan import BY_HAND, ModulePlan, Plan
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.shapes import full_widths
from pruning.checkpoint import parts_of, write
from pruning.evaluate.speed import peak_memory_bytes
from pruning.measure import measure
from pruning.measure.windows import windows_for
from pruning.models.execution.kv_cache import CachedReader
from pruning.models.loading import LoadedModel, load
from pruning.pipeline import prune
from pruning.planning import make_plan

BATCHES = (1, 8)


@dataclass(frozen=True)
class Case:
    """One row of the table: a model that ``load`` takes."""

    name: str
    place: str
    widths: str


def main() -> None:
    """Run the benchmark and print a Markdown table; every figure is a median over turns."""
    options = _options()
    if options.peak:
        print(json.dumps(_peak(options.peak, options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        cases = list(_cases(options, Path(folder)))
        loaded = {case.name: _load(case.place, options) for case in cases}
        rates = _by_turns({name: model.model for name, model in loaded.items()}, options)
        device = loaded["dense"].device
        print(
            f"{options.model} on {device}, torch {torch.__version__}, "
            f"{torch.get_num_threads()} threads, {options.dtype}, prompt {options.prompt} "
            f"tokens, {options.new} new ones, median of {options.turns} turns\n"
        )
        heads = [f"{what}, batch {size}" for size, what in rates["dense"]]
        print(f"| model | widths | {' | '.join(heads)} | weights | peak memory |")
        print("|---" * (len(heads) + 4) + "|")
        for case in cases:
            parameters = loaded[case.name].model.parameters()
            weights = sum(p.numel() * p.element_size() for p in parameters)
            peak = _peak_elsewhere(case, options)
            cells = " | ".join(_cell(rates, case.name, key) for key in rates["dense"])
            print(
                f"| {case.name} | {case.widths} | {cells} | {weights / 2**20:,.0f} MiB "
                f"| {peak / 2**20:,.0f} MiB |",
                flush=True,
            )


def _options() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--dtype", default="float32")
    made.add_argument("--ffn-ratio", type=float, default=0.31)
    made.add_argument("--head-ratio", type=float, default=0.0)
    made.add_argument("--multiple", type=int, default=64, help="of FFN widths, rounded down")
    made.add_argument("--prompt", type=int, default=128)
    made.add_argument("--new", type=int, default=32)
    made.add_argument("--turns", type=int, default=5)
    made.add_argument("--peak", metavar="MODEL", help=argparse.SUPPRESS)
    return made.parse_args()


def _load(place: str, options: argparse.Namespace) -> LoadedModel:
    return load(place, dtype=options.dtype, device=options.device)


def _cases(options: argparse.Namespace, folder: Path) -> Iterator[Case]:
    """The dense model, and both pruned ones saved in the compact form."""
    dense = _load(options.model, options)
    recipe = Recipe.parse(
        {
            "model": {"source": options.model, "dtype": options.dtype},
            "calibration": {"source": options.calibration, "samples": 4, "seq_len": 128},
            "heads": {"ratio": options.head_ratio},
            "ffn": {"ratio": options.ffn_ratio},
            "recovery": {"method": "none"},
        }
    )
    measurement = measure(dense.model, windows_for(dense, recipe), name=dense.source)
    plan = make_plan(measurement, recipe)
    yield Case("dense", options.model, _widths(replace(plan, blocks=()), dense))
    for name, chosen in (("pruned", plan), ("pruned, rounded", rounded(plan, options.multiple))):
        run = prune(dense, recipe, plan=chosen, measurement=measurement)
        place = folder / name.replace(", ", "-")
        write(parts_of(run), place)
        yield Case(name, str(place), _widths(chosen, dense))


def rounded(plan: Plan, multiple: int) -> Plan:
    """``plan`` with FFN widths brought down to a multiple, by removing the next channels."""
    for block in plan.blocks:
        module = block.ffn
        surplus = len(module.kept) % multiple
        if surplus and len(module.kept) > multiple:
            plan = plan.with_module(_without(module, module.kept[-surplus:]))
    return plan


def _without(module: ModulePlan, more: tuple[int, ...]) -> ModulePlan:
    removed = tuple(sorted({*module.removed, *more}))
    count = len(removed)
    return replace(
        module,
        removed=removed,
        criteria=(BY_HAND,) * count,
        values=(0.0,) * count,
        partners=(-1,) * count,
        ranks=(0,) * count,
    )


def _widths(plan: Plan, dense: LoadedModel) -> str:
    widths = plan.widths or full_widths(dense.adapter.model_shape(dense.model))
    spans = []
    for name in ("heads", "channels"):
        sizes = {getattr(width, name) for width in widths}
        least, most = min(sizes), max(sizes)
        spans.append(f"{least} {name}" if least == most else f"{least}–{most} {name}")
    return ", ".join(spans)


def _by_turns(models: dict[str, nn.Module], options: argparse.Namespace) -> dict:
    """{model: {(batch, what): [tokens per second, one per turn]}}; other work on the machine
    then slows all models alike."""
    keys = [(size, what) for size in BATCHES for what in ("prefill", "decode")]
    rates = {name: {key: [] for key in keys} for name in models}
    for turn in range(options.turns + 1):
        for name, model in models.items():
            for size in BATCHES:
                prefill, decode = _time(model, size, options.prompt, options.new)
                if turn:  # the first turn warms up
                    rates[name][size, "prefill"].append(prefill)
                    rates[name][size, "decode"].append(decode)
        print(f"turn {turn} of {options.turns}", file=sys.stderr)
    return rates


@torch.inference_mode()
def _time(model: nn.Module, batch: int, prompt: int, new: int) -> tuple[float, float]:
    """Tokens per second over the whole batch, reading and writing."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.config.vocab_size, (batch, prompt), generator=generator)
    ids = ids.to(model.device)
    reader = CachedReader(model)

    def now() -> float:
        finish(model.device)
        return time.perf_counter()

    started = now()
    logits = reader.read(ids, logits_to_keep=1)
    read = now()
    for _ in range(new):
        logits = reader.read(logits[:, -1:].argmax(-1))
    return batch * prompt / (read - started), batch * new / (now() - read)


def _cell(rates: dict, name: str, key: tuple[int, str]) -> str:
    median, dense = (statistics.median(rates[which][key]) for which in (name, "dense"))
    return f"{median:,.0f}" + ("" if name == "dense" else f" ({median / dense:.2f} ×)")


def _peak_elsewhere(case: Case, options: argparse.Namespace) -> int:
    """Peak memory of a fresh process that loads this model only and runs the largest batch."""
    command = [sys.executable, "-m", "benchmarks.inference", "--peak", case.place, "--new", "4"]
    for name in ("device", "dtype", "prompt"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _peak(place: str, options: argparse.Namespace) -> int:
    model = _load(place, options).model
    _time(model, max(BATCHES), options.prompt, options.new)
    return peak_memory_bytes(model.device)


if __name__ == "__main__":
    main()
