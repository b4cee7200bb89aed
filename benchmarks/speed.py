"""``python -m benchmarks.speed``: what a prune costs, and that the cost grows linearly.

Prints seconds per stage (load, measure, plan, prune, evaluate), the whole as a multiple of one
dense and one pruned forward pass over the same tokens, and the peak memory (each row's own); then
the same for a small random model with 1, 2, 4 and 8 times the blocks, and the samples. The recipe
is preset ``fast``: refit, no augmentations. Runs on the CPU and, where there is one, on a GPU.

A forward pass (the blocks, without the output layer) is timed before and after each stage, for a
machine may be busy. ``--clock cpu`` with ``--threads 1`` counts what the process computes instead
of what passes by.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.forward import finish, forward_seconds
from pruning.artifacts.recipe import Recipe
from pruning.evaluate.perplexity import batched_losses
from pruning.evaluate.speed import peak_memory_bytes
from pruning.measure import measure
from pruning.measure.windows import recovery_windows, windows_for
from pruning.models.loading import load
from pruning.planning import make_plan
from pruning.presets import PRESETS
from pruning.surgery.apply import apply

STAGES = ("load", "measure", "plan", "prune", "of it solves", "evaluate")
TIMES = (1, 2, 4, 8)


def main() -> None:
    """Run the benchmark and print one Markdown table per device."""
    options = _options()
    threads = options.threads or torch.get_num_threads()
    for device in options.devices or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        print(
            f"\n{device}, torch {torch.__version__}, {threads} threads, "
            f"{options.clock} time, {options.keep:.0%} of block parameters kept\n"
        )
        print(
            f"| model | tokens | {' | '.join(STAGES)} | dense pass | measure / dense | "
            "prune / dense | all / (dense + pruned) | peak memory |"
        )
        print("|" + "---|" * (len(STAGES) + 7), flush=True)
        for times in options.samples_times:
            _alone(options.model, options.model, options.samples * times, device, options)
        sizes = [(times, 1) for times in options.growth]
        sizes += [(1, times) for times in options.growth if times > 1]
        for blocks, samples in sizes:
            with TemporaryDirectory() as folder:
                _random_model(Path(folder), options.blocks * blocks)
                name = f"random, {options.blocks * blocks} blocks"
                _alone(name, folder, options.samples * samples, device, options, "random")


def _alone(*arguments) -> None:
    """Print a row from a process of its own, for peak memory is that of a process."""
    process = get_context("spawn").Process(target=_row, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def _row(
    name: str, source: str, samples: int, device: str, options: argparse.Namespace, corpus=None
) -> None:
    if options.threads:
        torch.set_num_threads(options.threads)
    text = {"source": corpus or options.calibration, "samples": samples, "seq_len": options.seq_len}
    budget = {"kept": options.keep}
    recipe = Recipe.parse({**PRESETS["fast"], "calibration": text, "budget": budget})
    clock = _Clock(device, options.clock)
    loaded = clock("load", load, source, dtype="float32", device=device)
    windows = windows_for(loaded, recipe)
    passes = partial(forward_seconds, adapter=loaded.adapter, ids=windows.ids, now=clock.time)
    passes(loaded.model)  # warm
    dense = [passes(loaded.model)]
    measured = clock("measure", measure, loaded.model, windows, name=name)
    dense.append(passes(loaded.model))
    plan = clock("plan", make_plan, measured, recipe)
    done = clock("prune", apply, loaded.model, plan, recipe, recovery_windows(loaded, recipe))
    dense.append(passes(loaded.model))
    if options.clock == "wall":  # the only one that events are timed by
        clock.seconds["of it solves"] = sum(event.solve_seconds for event in done.events)
    pruned = passes(done.model)
    clock("evaluate", lambda: [losses.sum() for losses in batched_losses(done.model, windows.ids)])
    seconds = clock.seconds
    by_measure, by_prune = statistics.mean(dense[:2]), statistics.mean(dense[1:])
    whole = seconds["measure"] + seconds["plan"] + seconds["prune"]
    peak = peak_memory_bytes(loaded.model.device) / 2**20
    print(
        f"| {name} | {samples} x {options.seq_len} | "
        + " | ".join(f"{seconds[s]:.2f} s" if s in seconds else "–" for s in STAGES)
        + f" | {statistics.mean(dense):.2f} s | {seconds['measure'] / by_measure:.2f} | "
        f"{seconds['prune'] / by_prune:.2f} | {whole / (statistics.mean(dense) + pruned):.2f} | "
        f"{peak:,.0f} MiB |",
        flush=True,
    )


class _Clock:
    """Seconds by stage, once the device has finished; by the CPU clock those of this process."""

    def __init__(self, device: str, kind: str) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self.time = time.process_time if kind == "cpu" else time.perf_counter

    def __call__(self, stage: str, call, *args, **kwargs):
        started = self.now()
        with torch.no_grad():
            result = call(*args, **kwargs)
        self.seconds[stage] = self.now() - started
        return result

    def now(self) -> float:
        finish(torch.device(self.device))
        return self.time()


def _random_model(folder: Path, blocks: int) -> None:
    config = LlamaConfig(
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=1024,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--calibration", default="sample", help="corpus or path")
    parser.add_argument("--devices", nargs="*", help="default: the CPU and a card, if there is one")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--keep", type=float, default=0.8, help="share of block parameters")
    parser.add_argument("--samples-times", type=int, nargs="*", default=[1], help="of --model")
    parser.add_argument("--blocks", type=int, default=4, help="of the random model")
    parser.add_argument("--growth", type=int, nargs="*", default=TIMES, help="of the random model")
    parser.add_argument("--threads", type=int, help="default: those of the machine")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    return parser.parse_args()


if __name__ == "__main__":
    main()
