"""Loss gradients by the level-2 output of every module, token by token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pruning.adapters.base import ModelAdapter
from pruning.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.shape import KINDS, ModuleKind
from pruning.streaming import block_contexts, embed, run_with_output

TOKENS_AT_ONCE = 512


def output_gradients(
    model: nn.Module,
    adapter: ModelAdapter,
    ids: Tensor,
    seed: int,
    *,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> dict[tuple[int, ModuleKind], Tensor]:
    """Gradient [n, s, d] (CPU, bfloat16) of the summed loss by the level-2 output of each module,
    for windows ``ids`` [n, s].

    The next tokens are drawn from the model itself, so ``E[(g·δ)²] / 2`` is to second order the
    Kullback-Leibler divergence that an error δ of the output causes (Fisher information), and not
    what it happens to do to the text's own tokens. Raises Cancelled.
    """
    generator = torch.Generator().manual_seed(seed)
    contexts = block_contexts(model, adapter, ids.shape[1])
    blocks = adapter.blocks(model)
    found: dict[tuple[int, ModuleKind], list[Tensor]] = {
        (index, kind): [] for index in range(len(blocks)) for kind in KINDS
    }
    parts = ids.split(max(1, TOKENS_AT_ONCE // ids.shape[1]))
    for done, part in enumerate(parts, start=1):
        stop_if(should_cancel)
        entering = [embed(model, adapter, part).to(model.device)]
        with torch.no_grad():
            for block, context in zip(blocks, contexts, strict=True):
                entering.append(_block(adapter, block, entering[-1], context)[-1])
        gradient = _by_last_block(model, adapter, part, entering.pop(), generator)
        for index in reversed(range(len(blocks))):
            with torch.enable_grad():
                leaf = entering.pop().requires_grad_()
                *added, leaving = _block(adapter, blocks[index], leaf, contexts[index])
            wanted = torch.autograd.grad(leaving, [leaf, *added], gradient.to(leaving))
            gradient = wanted[0]
            for kind, by_output in zip(KINDS, wanted[1:], strict=True):
                found[index, kind].append(by_output.reshape_as(leaf).bfloat16().cpu())
        progress(Progress("measure", done, len(parts), "Gradients of the loss"))
    return {place: torch.cat(tensors) for place, tensors in found.items()}


def _block(adapter: ModelAdapter, block: nn.Module, hidden: Tensor, context) -> list[Tensor]:
    """Level-2 outputs of attention and FFN and the block's output, each [n, s, d]."""
    entering, outputs = hidden, []
    for kind in KINDS:
        module = adapter.module(block, kind)
        reads = entering if adapter.parallel(block) else hidden
        added, output = run_with_output(adapter, block, module, reads, context)
        hidden = hidden + added
        outputs.append(output)
    return [*outputs, hidden]


def _by_last_block(
    model: nn.Module, adapter: ModelAdapter, ids: Tensor, leaving: Tensor, generator
) -> Tensor:
    """Gradient [n, s, d] of the summed loss by the last block's output ``leaving``."""
    leaf = leaving.detach().requires_grad_()
    with torch.enable_grad(), _last_block_gives(model, adapter, leaf):
        logits = model(input_ids=ids.to(model.device), use_cache=False).logits.float()
        drawn = torch.multinomial(
            logits.detach().softmax(-1).flatten(0, 1).cpu(), 1, generator=generator
        )
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1), drawn[:, 0].to(logits.device), reduction="sum"
        )
    return torch.autograd.grad(loss, leaf)[0]


@contextmanager
def _last_block_gives(model: nn.Module, adapter: ModelAdapter, leaf: Tensor) -> Iterator[None]:
    """Let the graph begin behind the last block."""

    def give(_block: nn.Module, _args: tuple, output):
        return (leaf, *output[1:]) if isinstance(output, tuple) else leaf

    handle = adapter.blocks(model)[-1].register_forward_hook(give)
    try:
        yield
    finally:
        handle.remove()
