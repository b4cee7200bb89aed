"""``python -m benchmarks.any_size``: a large random Llama measured, pruned and evaluated.

Writes a sharded checkpoint of random weights (default: the shape of Llama 7B in bfloat16, 13.5 GB)
below ``--folder``, measures, prunes and evaluates it on random tokens, block by block unless
``--placement`` says otherwise, and deletes it. Prints seconds and the peak memory after each stage.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig

from benchmarks.forward import forward_seconds
from pruning.artifacts.recipe import Recipe
from pruning.evaluate.perplexity import batched_losses
from pruning.evaluate.speed import peak_memory_bytes
from pruning.measure import measure
from pruning.measure.windows import recovery_windows, windows_for
from pruning.models.compact.load import INDEX, skeleton
from pruning.models.loading import load
from pruning.models.loading.memory_estimate import estimate
from pruning.models.loading.memory_needs import PLACEMENTS
from pruning.pipeline import memory_task
from pruning.planning import make_plan
from pruning.surgery.apply import apply


def main() -> None:
    """Run the benchmark and print one line per stage."""
    options = _options()
    with TemporaryDirectory(dir=options.folder) as made:
        config = _config(options)
        bytes_written = _timed("write", _write, Path(made), config, options.seed)
        print(f"checkpoint: {bytes_written / 1e9:.2f} GB, {config.num_hidden_layers} blocks")
        _run(made, options)


def _run(folder: str, options: argparse.Namespace) -> None:
    text = {"source": "random", "samples": options.samples, "seq_len": options.seq_len}
    ffn, recovery = {"ratio": options.ffn_ratio}, {"copies": 0}
    recipe = Recipe.parse({"calibration": text, "ffn": ffn, "recovery": recovery})
    task = memory_task(recipe)
    needs = estimate(folder, dtype="bfloat16", device=options.device, task=task)
    placement = options.placement
    print(needs.sentence(placement))
    how = {"dtype": "bfloat16", "placement": placement, "task": task, "device": options.device}
    loaded = _timed("load", load, folder, **how)
    device = loaded.model.device
    windows = windows_for(loaded, recipe)
    measured = _timed("measure", measure, loaded.model, windows, name="random", device=device)
    with torch.inference_mode():
        _timed("dense pass", forward_seconds, loaded.model, loaded.adapter, windows.ids)
    plan = make_plan(measured, recipe)
    done = _timed(
        "prune", apply, loaded.model, plan, recipe, recovery_windows(loaded, recipe), device=device
    )
    solves = sum(event.solve_seconds for event in done.events)
    print(f"of it solves: {solves:.1f} s; kept {plan.kept_block_parameters:.1%} of the blocks")
    for name, model in (("dense", loaded.model), ("pruned", done.model)):
        losses = _timed(f"evaluate {name}", _losses, model, windows.ids, device=device)
        print(f"mean loss, {name}: {losses.mean().item():.4f} nats")


@torch.inference_mode()
def _losses(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return torch.cat([losses.cpu() for losses in batched_losses(model, ids)])


def _timed(stage: str, call, *args, device=None, **kwargs):
    """Call, and print how long it took and the most memory that was held so far."""
    started = time.perf_counter()
    if isinstance(device, str):
        kwargs["device"], device = device, None
    result = call(*args, **kwargs)
    seconds = time.perf_counter() - started
    peaks = f"process {peak_memory_bytes(torch.device('cpu')) / 2**30:.2f} GiB"
    if device is not None and device.type == "cuda":
        peaks += f", device {peak_memory_bytes(device) / 2**30:.2f} GiB"
    print(f"{stage}: {seconds:.1f} s, peak {peaks}", flush=True)
    return result


def _config(options: argparse.Namespace) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=options.hidden,
        intermediate_size=options.ffn,
        num_hidden_layers=options.blocks,
        num_attention_heads=options.heads,
        num_key_value_heads=options.heads,
        vocab_size=32000,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        dtype="bfloat16",
    )


def _write(folder: Path, config: LlamaConfig, seed: int) -> int:
    """Write random weights, one file per block; returns their bytes."""
    model = skeleton(config, torch.bfloat16)
    weights = _Weights(seed, max(parameter.numel() for parameter in model.parameters()))
    where, total = {}, 0
    for part in ("", *(f"model.layers.{n}." for n in range(config.num_hidden_layers))):
        tensors = {}
        for name, parameter in model.named_parameters():
            inside = name.startswith("model.layers.")
            if name.startswith(part) and (part or not inside):
                tensors[name] = weights(parameter.shape)
        file = f"model-{part.strip('.') or 'outside'}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(tensors, file)
        total += sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    return total


class _Weights:
    """Random weights: each matrix begins somewhere else in the same normal numbers, for sampling
    all of them would take longer than the run."""

    def __init__(self, seed: int, largest: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.numbers = (torch.randn(largest, generator=self.generator) * 0.02).bfloat16()

    def __call__(self, shape: torch.Size) -> torch.Tensor:
        if len(shape) == 1:
            return torch.ones(shape, dtype=torch.bfloat16)
        start = torch.randint(len(self.numbers), (1,), generator=self.generator).item()
        end = start + shape.numel()
        around = self.numbers[: max(end - len(self.numbers), 0)]
        return torch.cat([self.numbers[start:end], around]).reshape(shape)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="where the checkpoint is written for the time of the run")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--placement", default="disk", choices=PLACEMENTS)
    parser.add_argument("--blocks", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--ffn", type=int, default=11008)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--seq-len", type=int, default=64)
    parser.add_argument("--ffn-ratio", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    _check_room(options)
    return options


def _check_room(options: argparse.Namespace) -> None:
    block = 4 * options.hidden**2 + 3 * options.hidden * options.ffn
    needed = 2 * (options.blocks * block + 2 * 32000 * options.hidden)
    free = shutil.disk_usage(options.folder or "/tmp").free
    if needed * 1.1 > free:
        raise SystemExit(f"The checkpoint takes {needed / 1e9:.1f} GB, {free / 1e9:.1f} are free.")


if __name__ == "__main__":
    main()
