"""The measuring pass: blocks outside, batches inside; one block's attention maps at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruning.adapters.base import ModelAdapter, PrunableModule, adapter_for
from pruning.adapters.projection import layer_matrix
from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.artifacts.measurement import (
    ActivationSummary,
    BlockMeasurement,
    Measurement,
    ModuleMeasurement,
)
from pruning.data.windows import Windows
from pruning.distributed.ranks import Ranks
from pruning.measure.js_divergence import DivergenceSum
from pruning.measure.moments import LEVELS, MagnitudeSum, MomentSum
from pruning.models.execution.blockwise import (
    attention_implementation,
    batches,
    block_contexts,
    embed,
    share_of,
)
from pruning.models.execution.offload import device_of, resident
from pruning.models.execution.tap import Part, Tap, expert_part

FEW_TOKENS = 32
"""An expert that fewer tokens are routed to is filled up to as many with others of the block."""


@torch.no_grad()
def measure(
    model: nn.Module,
    windows: Windows,
    *,
    name: str,
    revision: str | None = None,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Measurement:
    """Measure ``model`` on calibration ``windows`` (ids [n, s]), this rank on its share of them.

    Memory: the residual stream [n, s, d] plus one batch of one block's attention maps.
    Raises Cancelled and Unsupported.
    """
    started = time.perf_counter()
    adapter = adapter_for(model.config)
    blocks = adapter.blocks(model)
    measured = []
    mine = share_of(windows.ranks, *windows.ids.shape)
    with attention_implementation(model, "eager"):
        contexts = block_contexts(model, adapter, windows.ids.shape[1])
        hidden = embed(model, adapter, windows.ids[mine], stay=True)
        for index, (block, context) in enumerate(zip(blocks, contexts, strict=True)):
            stop_if(should_cancel)
            with resident(block, then=blocks[index + 1 : index + 2]):
                measured.append(_measure_block(adapter, block, context, hidden, windows))
            progress(Progress("measure", index + 1, len(blocks), f"Measured block {index}"))
    return Measurement(
        model=name,
        revision=revision,
        dtype=str(model.dtype).removeprefix("torch."),
        corpus=windows.source,
        corpus_fingerprint=windows.fingerprint,
        samples=windows.ids.shape[0],
        seq_len=windows.ids.shape[1],
        seed=windows.seed,
        shape=adapter.model_shape(model),
        blocks=tuple(measured),
        seconds=round(time.perf_counter() - started, 3),
    )


def _measure_block(
    adapter: ModelAdapter,
    block: nn.Module,
    context: Mapping[str, Any],
    hidden: Tensor,
    windows: Windows,
) -> BlockMeasurement:
    """Measure one block and advance ``hidden`` [n, s, d], of this rank's ``windows``, through it in
    place."""
    device = device_of(block)
    attention, ffn = adapter.attention(block), adapter.ffn(block)
    parallel = adapter.parallel(block)
    divergence = DivergenceSum(attention.units)
    sums = {"attention": ModuleSums(attention, windows), "ffn": ModuleSums(ffn, windows)}
    places = {place: MagnitudeSum() for place in ("residual", "attention", "ffn")}
    for batch in batches(*hidden.shape[:2]):
        entering = hidden[batch].to(device)
        places["residual"].add(entering)
        with Tap(attention) as tap:
            added, probabilities = adapter.run_attention(block, entering, context)
        sums["attention"].add(tap)
        places["attention"].add(added)
        divergence.add(probabilities)
        del probabilities
        leaving = entering + added
        with Tap(ffn) as tap:
            leaving = leaving + adapter.run_ffn(block, entering if parallel else leaving)
        sums["ffn"].add(tap)
        width = ffn.units // ffn.experts
        for expert, part in enumerate(tap.parts()):
            places["ffn"].add(part.out_proj_input, expert * width, ffn.units)
        hidden[batch] = leaving.to(hidden.device)
    for total in (divergence, *places.values()):
        total.gather(windows.ranks)
    return BlockMeasurement(
        divergence=_plain(divergence.result()),
        attention=sums["attention"].result(),
        ffn=sums["ffn"].result(),
        activations={place: _summary(total) for place, total in places.items()},
    )


class ModuleSums:
    """Accumulates the statistics of one module (names in :mod:`pruning.artifacts.measurement`),
    those of ``in_proj`` outputs only when wanted, over the ``windows`` of all ranks. Every expert
    has sums of its own, over the tokens routed to it."""

    def __init__(self, module: PrunableModule, windows: Windows, in_proj: bool = True) -> None:
        self.module, self.windows = module, windows
        self.parts = [_PartSums(module, in_proj) for _ in range(module.experts)]
        self.first_batch: Tensor | None = None  # what a mixture reads in it

    def add(self, tap: Tap) -> None:
        """Add what one run of the module showed."""
        if tap.routing is not None and self.first_batch is None:
            self.first_batch = tap.routing.hidden
        for sums, part in zip(self.parts, tap.parts(), strict=True):
            sums.add(part)

    def result(self) -> ModuleMeasurement:
        """Those of all ranks, to be asked for once."""
        for sums in self.parts:
            sums.gather(self.windows.ranks)
        counts = [sums.inputs.count for sums in self.parts]
        self._fill_up()
        statistics = weight_statistics(self.module)
        if self.module.mixture:
            statistics["expert_tokens"] = torch.tensor(counts)
        parts = [sums.result() for sums in self.parts]
        statistics |= {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return ModuleMeasurement({name: _plain(value) for name, value in statistics.items()})

    def _fill_up(self) -> None:
        """Show experts that hardly any token was routed to a few others of the block: else chance
        would decide on their channels, or nothing at all."""
        if self.first_batch is None:
            return
        first = batches(*self.windows.ids.shape)[0].stop * self.windows.ids.shape[1]
        hidden = self.windows.ranks.gathered(self.first_batch)[:first]
        sample = hidden[:: -(-len(hidden) // FEW_TOKENS)]
        for expert, sums in enumerate(self.parts):
            missing = FEW_TOKENS - sums.inputs.count
            if missing > 0:
                sums.add(expert_part(self.module, expert, sample[:missing]))


class _PartSums:
    """The moments of a module, or of one expert."""

    def __init__(self, module: PrunableModule, in_proj: bool) -> None:
        self.module = module
        self.inputs = MomentSum()
        self.in_proj = {name: MomentSum() for name in module.in_proj if in_proj}

    def add(self, part: Part) -> None:
        self.inputs.add(part.out_proj_input)
        for name, moments in self.in_proj.items():
            bias = self.module.in_proj[name].bias()
            output = part.in_proj[name]
            moments.add(output if bias is None else output - bias)

    def gather(self, ranks: Ranks) -> None:
        for moments in (self.inputs, *self.in_proj.values()):
            moments.gather(ranks)

    def result(self) -> dict[str, Tensor]:
        statistics = {
            "input_mean": self.inputs.mean(),
            "input_second_moment": self.inputs.second_moment(),
            "input_variance": self.inputs.variance(),
        }
        for name, moments in self.in_proj.items():
            statistics[f"{name}_second_moment"] = moments.second_moment()
        return statistics


def weight_statistics(module: PrunableModule) -> dict[str, Tensor]:
    """Norms of the out_proj columns and of the in_proj rows, float32."""
    columns = layer_matrix(module.out_proj).float()
    result = {"level2_sq": columns.square().sum(0), "level2_abs": columns.abs().sum(0)}
    for name, projection in module.in_proj.items():
        rows = projection.weight().float()
        result[f"{name}_sq"] = rows.square().sum(1)
        result[f"{name}_abs"] = rows.abs().sum(1)
    return result


def _plain(tensor: Tensor) -> np.ndarray:
    array = tensor.detach().to("cpu", torch.float32).numpy()
    array.setflags(write=False)
    return array


def _summary(total: MagnitudeSum) -> ActivationSummary:
    channels, values = total.largest_channels()
    return ActivationSummary(
        mean=_short(total.mean),
        mean_absolute=_short(total.mean_absolute),
        rms=_short(total.rms),
        maximum=_short(total.maximum),
        levels=LEVELS,
        quantiles=tuple(map(_short, total.quantiles())),
        top_channels=channels,
        top_values=tuple(map(_short, values)),
    )


def _short(value: float) -> float:
    """Six significant digits: display figures need no more."""
    return float(f"{value:.6g}")
