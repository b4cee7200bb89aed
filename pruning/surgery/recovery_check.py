"""Never worse than doing nothing: the recovered model beside the plain cut, on held-out windows.

Each module is fitted by itself, and an error that every module leaves can compound; only the whole
model shows it. Two passes over few windows tell. Neither holds a second pruned model: the plain cut
exists one block at a time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from pruning.adapters.base import ModelAdapter, adapter_for
from pruning.artifacts.events import CancelCheck, RecoveryCheck, never, stop_if
from pruning.artifacts.plan import BlockPlan, Plan
from pruning.artifacts.shapes import KINDS
from pruning.evaluate.perplexity import next_token_losses, windows_per_batch
from pruning.models.execution.blockwise import Frame, batched_logits, batches, block_contexts, embed
from pruning.models.execution.offload import device_of, resident
from pruning.models.execution.sampling import sample
from pruning.surgery.cut import cut, shared_copy
from pruning.utils.precision import to_float64

Logits = Iterator[tuple[Tensor, Tensor]]
"""Some windows [b, s] at a time, and their logits [b, s, vocabulary]."""


@torch.inference_mode()
def compare(
    dense: nn.Module,
    recovered: nn.Module,
    plan: Plan,
    ids: Tensor,
    *,
    language: bool = True,
    seed: int = 0,
    should_cancel: CancelCheck = never,
) -> RecoveryCheck:
    """Losses of ``recovered`` and of ``dense`` cut by ``plan`` on windows ``ids`` [n, s].

    Without ``language`` the ids are noise that no model foretells: then the tokens to foretell are
    sampled from the dense model, one more pass. The same arguments give the same losses. Raises
    Cancelled.
    """
    started, size = time.perf_counter(), windows_per_batch(dense, ids.shape[1])
    following = ids[:, 1:]
    if not language:
        following = _sampled(batched_logits(dense, ids, size, should_cancel), seed)
    found = _loss(batched_logits(recovered, ids, size, should_cancel), following)
    plain = _loss(plain_cut_logits(dense, plan, ids, size, should_cancel), following)
    # what is not a number is never the better one
    better = found is not None and (plain is None or found <= plain)
    return RecoveryCheck(
        recovered=found,
        plain=plain,
        windows=len(ids),
        seq_len=ids.shape[1],
        kept="recovered" if better else "plain",
        seconds=round(time.perf_counter() - started, 3),
    )


def plain_cut_logits(
    model: nn.Module, plan: Plan, ids: Tensor, size: int, should_cancel: CancelCheck = never
) -> Logits:
    """``size`` windows of ``ids`` [n, s] at a time with the logits of ``model`` cut as ``plan``
    says, nothing repaired. A block's cut copy is gone before the next is made; hidden states
    [n, s, d] wait where :func:`embed` leaves them. Raises Cancelled."""
    adapter = adapter_for(model.config)
    blocks, contexts = adapter.blocks(model), block_contexts(model, adapter, ids.shape[1])
    hidden = embed(model, adapter, ids, stay=True)
    for index, block in enumerate(blocks):
        stop_if(should_cancel)
        with resident(block, then=blocks[index + 1 : index + 2]):
            small, device = _cut_block(adapter, block, plan.blocks[index]), device_of(block)
            run = _runner(adapter, small, contexts[index])
            for batch in batches(*hidden.shape[:2]):
                hidden[batch] = run(hidden[batch].to(device)).to(hidden.device)
    places = torch.arange(len(ids)).split(size)
    frames = {len(part): Frame(model, adapter, ids[part]) for part in (places[0], places[-1])}
    for part in places:
        batch = ids[part].to(model.device)
        yield batch, frames[len(part)].logits(batch, hidden[part])


def _cut_block(adapter: ModelAdapter, block: nn.Module, plan: BlockPlan) -> nn.Module:
    """A copy of a live block that shares what stays, cut as ``plan`` says."""
    small = shared_copy(block)
    for kind in KINDS:
        decision = plan.module(kind)
        if decision.removed:
            module = adapter.module(small, kind)
            cut(adapter, small, module, decision.kept, decision.kept_groups)
    return small


def _runner(adapter: ModelAdapter, block: nn.Module, context: dict) -> Callable[[Tensor], Tensor]:
    """What a live block makes of the residual stream, module by module."""

    def run(entering: Tensor) -> Tensor:
        leaving = entering + adapter.run(block, "attention", entering, context)
        reads = entering if adapter.parallel(block) else leaving
        return leaving + adapter.run(block, "ffn", reads, context)

    return run


def _loss(batched: Logits, following: Tensor) -> float | None:
    """Mean loss in nats of the ``following`` tokens [n, s - 1]; None when it is not finite."""
    total, done = 0.0, 0
    for batch, logits in batched:
        wanted = following[done : done + len(batch)].to(logits.device)
        total += to_float64(next_token_losses(logits, wanted)).sum().item()
        done += len(batch)
    loss = total / following.numel()
    return loss if math.isfinite(loss) else None


def _sampled(batched: Logits, seed: int) -> Tensor:
    """A token [n, s - 1] after each but the last of every window, sampled from what the model
    expects there."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for batch, logits in batched:
        probs = logits[:, :-1].float().softmax(-1).flatten(0, 1)
        rows.append(sample(probs, 1, generator).view(len(batch), -1))
    return torch.cat(rows)
