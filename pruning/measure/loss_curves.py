"""Loss curves: what it costs to keep fewer units of a module, before anything is cut.

For a handful of widths out_proj is fitted to the best units, as the refit will do, on one half of
the windows; on the other half the error δ it leaves is weighed with the loss gradient g at the
module's output: ``½ E[(g·δ)²]`` nats per token, the divergence to second order. Token by token,
because large errors and large gradients meet at the same tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruning.adapters.base import ModelAdapter, PrunableModule, adapter_for
from pruning.adapters.projection import layer_matrix
from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.artifacts.measurement import Measurement
from pruning.artifacts.shapes import KINDS, ModuleKind
from pruning.data.windows import Windows
from pruning.distributed.ranks import Ranks
from pruning.measure.curve_fit import ProbedPart, Probes, loss_curves
from pruning.measure.output_gradients import output_gradients
from pruning.models.execution.blockwise import batches, block_contexts, embed, share_of
from pruning.models.execution.offload import device_of, resident
from pruning.models.execution.tap import Part, Tap
from pruning.models.limits import probe_token_bytes, probe_windows
from pruning.recovery.solvers.gram import gram
from pruning.utils.precision import sum_dtype, to_float64
from pruning.utils.stopwatch import Stopwatch


def with_loss_curves(
    measurement: Measurement,
    model: nn.Module,
    windows: Windows,
    *,
    eliminates: bool = False,
    autocast_dtype: torch.dtype | None = None,
    solving: Stopwatch | None = None,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Measurement:
    """``measurement`` of ``model`` with its loss curves added (names in
    :mod:`pruning.artifacts.measurement`), from ``windows`` (ids [n, s], in groups), its modules
    run in ``autocast_dtype`` (None: that of the weights). ``eliminates``: units go by elimination
    under the refit, else by their exact second moments. ``solving`` counts the seconds that go
    into fits.

    Memory: the residual stream [n, s, d], one module's Gram matrix and its probed inputs, and
    what :func:`pruning.models.limits.probe_windows` bounds: the probes' streams between the
    blocks and gradients by every module's output. Raises Cancelled.
    """
    adapter = adapter_for(model.config).with_autocast(autocast_dtype)
    blocks = adapter.blocks(model)
    measured = list(measurement.blocks)
    width = model.get_input_embeddings().weight.shape[1]
    token_bytes = probe_token_bytes(len(blocks), width, model.dtype.itemsize)
    halves, ranks = _halves(windows, token_bytes), windows.ranks
    shares = [share_of(ranks, *ids.shape) for ids in halves]
    fit_ids, probe_ids = (ids[share] for ids, share in zip(halves, shares, strict=True))
    seq_len, first = windows.ids.shape[1], shares[1].start
    probes = Probes(len(probe_ids) * seq_len, first * seq_len, halves[1].numel(), ranks)
    callbacks = {"progress": progress, "should_cancel": should_cancel}
    solving = solving or Stopwatch()
    seed = windows.seed
    gradients = output_gradients(model, adapter, probe_ids, seed, first=first, **callbacks)
    with torch.no_grad():
        contexts = block_contexts(model, adapter, fit_ids.shape[1])
        streams = [embed(model, adapter, ids) for ids in (fit_ids, probe_ids)]
        for index, (block, context) in enumerate(zip(blocks, contexts, strict=True)):
            stop_if(should_cancel)
            with resident(block, then=blocks[index + 1 : index + 2]):
                for kind, sums in _sums_of_block(adapter, block, context, streams):
                    sums.gather(ranks)
                    with solving.running():
                        gradient = gradients.pop((index, kind))
                        curves = sums.curves(gradient, probes, eliminates)
                    measured[index] = measured[index].with_statistics(kind, curves)
            progress(Progress("measure", index + 1, len(blocks), f"Loss curves of block {index}"))
    return replace(measurement, blocks=tuple(measured))


def _halves(windows: Windows, token_bytes: int) -> tuple[Tensor, Tensor]:
    """Even groups to fit on; of the odd ones first the texts, then their augmentations, to probe,
    as many as there is memory for at ``token_bytes`` per token."""
    groups = windows.ids.unflatten(0, (-1, windows.group))
    odd = groups[1::2] if len(groups) > 1 else groups
    fit = groups[::2].flatten(0, 1)
    probes = probe_windows(len(groups), windows.ids.shape[1], token_bytes)
    return fit, odd.transpose(0, 1).flatten(0, 1)[:probes]


def _sums_of_block(
    adapter: ModelAdapter, block: nn.Module, context: Mapping[str, Any], streams: list[Tensor]
) -> Iterator[tuple[ModuleKind, _ModuleSums]]:
    """Both modules with what they did; ``streams`` (to fit, to probe) [n, s, d] advance in
    place."""
    device = device_of(block)
    entering = [s.clone() for s in streams] if adapter.parallel(block) else streams
    for kind in KINDS:
        module = adapter.module(block, kind)
        sums = _ModuleSums(module, device)
        for hidden, stream, add in zip(entering, streams, (sums.fit, sums.probe), strict=True):
            for batch in batches(*stream.shape[:2]):
                part = hidden[batch].to(device)
                with Tap(module) as tap:
                    added = adapter.run(block, kind, part, context)
                add(tap, part.shape[:2].numel())
                stream[batch] += added.to(stream.device)
        yield kind, sums


class _ModuleSums:
    """What runs of one module show of each of its parts: the experts, or the whole of it."""

    def __init__(self, module: PrunableModule, device: torch.device) -> None:
        self.module, self.device = module, device
        self.parts = [_PartSums(module, device) for _ in range(module.experts)]
        self.probes = 0

    def fit(self, tap: Tap, _tokens: int) -> None:
        """Add one run on the fitted half."""
        for sums, part in zip(self.parts, tap.parts(), strict=True):
            sums.fit(part)

    def probe(self, tap: Tap, tokens: int) -> None:
        """Add one run on the probed half, of so many tokens."""
        for sums, part in zip(self.parts, tap.parts(), strict=True):
            sums.probe(part, self.probes)
        self.probes += tokens

    def gather(self, ranks: Ranks) -> None:
        """From now on Gram matrices are those of all ``ranks``; probes stay where they are."""
        for part in self.parts:
            part.gather(ranks)

    def curves(self, gradient: Tensor, probes: Probes, eliminates: bool) -> dict[str, np.ndarray]:
        """Nats per token by curve, from the ``gradient`` [n, s, d] by the module's output at the
        probes."""
        by_output = gradient.flatten(0, 1).to(self.device).float()
        mean = sum(part.count for part in self.parts) / len(self.parts)
        weights = layer_matrix(self.module.out_proj).T.chunk(len(self.parts))
        parts = [
            sums.probed(weight, by_output, mean)
            for sums, weight in zip(self.parts, weights, strict=True)
        ]
        return loss_curves(self.module, parts, probes, eliminates)


class _PartSums:
    """The Gram matrix and the probes of a module, or of one expert. What an expert gives is
    weighed with its share of the token."""

    def __init__(self, module: PrunableModule, device: torch.device) -> None:
        size = module.units * module.unit_width // module.experts
        self.gram = torch.zeros(size, size, dtype=sum_dtype(device), device=device)
        self.count = 0
        self.inputs: list[Tensor] = []
        self.places: list[Tensor] = []
        self.units = module.units // module.experts

    def fit(self, part: Part) -> None:
        flat = _weighed(part)
        self.count += len(flat)
        self.gram += gram([flat], flat.shape[1], self.gram.dtype, flat.device)

    def gather(self, ranks: Ranks) -> None:
        self.gram, self.count = ranks.total(self.gram), int(ranks.total(torch.tensor(self.count)))

    def probe(self, part: Part, first: int) -> None:
        """``first``: tokens that were probed before."""
        flat, places = _weighed(part), part.tokens
        if places is None:
            places = torch.arange(len(flat), device=flat.device)
        self.inputs.append(flat)
        self.places.append(places + first)

    def probed(self, weight: Tensor, by_output: Tensor, mean: float) -> ProbedPart:
        """For out_proj columns ``weight`` [units·w, d], gradients ``by_output`` [probes, d] and
        ``mean`` tokens of a part."""
        gram = to_float64(self.gram)
        inputs, places = torch.cat(self.inputs), torch.cat(self.places)
        weight = weight.to(inputs)
        importance = gram.diagonal() * to_float64(weight).square().sum(1)
        return ProbedPart(
            gram=gram,
            # the same ridge for all experts: see pruning.recovery.solvers.expert_fit
            scale=gram.diagonal().mean().item() * mean / max(self.count, 1),
            weight=weight,
            importance=importance.reshape(self.units, -1).sum(1).cpu(),
            places=places,
            inputs=inputs,
            by_channel=by_output[places] @ weight.T,
        )


def _weighed(part: Part) -> Tensor:
    """out_proj inputs [t, units·w] as the module's output depends on them."""
    values = part.out_proj_input.float()
    return values if part.shares is None else values * part.shares[:, None]
