"""Loss gradients by the out_proj output of every module, token by token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pruning.adapters.base import ModelAdapter
from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.artifacts.shapes import KINDS, ModuleKind
from pruning.models.execution.blockwise import Frame, embed
from pruning.models.execution.offload import device_of, moved, resident
from pruning.models.execution.sampling import sample
from pruning.models.execution.tap import run_with_output

TOKENS_AT_ONCE = 512


def output_gradients(
    model: nn.Module,
    adapter: ModelAdapter,
    ids: Tensor,
    seed: int,
    *,
    first: int = 0,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> dict[tuple[int, ModuleKind], Tensor]:
    """Gradient [n, s, d] (CPU, bfloat16) of the summed loss by the out_proj output of each module,
    for windows ``ids`` [n, s], which stand behind ``first`` others that other ranks have.

    The next tokens are sampled from the model itself, so ``E[(g·δ)²] / 2`` is to second order the
    Kullback-Leibler divergence that an error δ of the output causes (Fisher information), and not
    what it happens to do to the text's own tokens. Raises Cancelled.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.rand(first * ids.shape[1], generator=generator)  # what the others' tokens are sampled by
    blocks = adapter.blocks(model)
    parts = ids.split(max(1, TOKENS_AT_ONCE // ids.shape[1]))
    frame = Frame(model, adapter, parts[0][:1])
    contexts = [moved(c, device_of(b)) for c, b in zip(frame.contexts, blocks, strict=True)]
    entering = [[embed(model, adapter, part) for part in parts]]
    for index, (block, context) in enumerate(zip(blocks, contexts, strict=True)):
        stop_if(should_cancel)
        with resident(block, then=blocks[index + 1 : index + 2]):
            entering.append(_leaving(adapter, block, entering[-1], context))
    gradients = [
        _by_last_block(frame, part, leaving, generator)
        for part, leaving in zip(parts, entering.pop(), strict=True)
    ]
    by_module = {}
    for index in reversed(range(len(blocks))):
        stop_if(should_cancel)
        kinds: dict[ModuleKind, list[Tensor]] = {kind: [] for kind in KINDS}
        with resident(blocks[index], then=blocks[max(index - 1, 0) : index]):
            for place, hidden in enumerate(entering.pop()):
                leaf = hidden.to(device_of(blocks[index])).requires_grad_()
                with torch.enable_grad():
                    *added, leaving = _block(adapter, blocks[index], leaf, contexts[index])
                outer = gradients[place].to(leaving)
                by_leaf, *by_outputs = torch.autograd.grad(leaving, [leaf, *added], outer)
                gradients[place] = by_leaf.cpu()
                for kind, by_output in zip(KINDS, by_outputs, strict=True):
                    kinds[kind].append(by_output.reshape_as(leaf).bfloat16().cpu())
        by_module |= {(index, kind): torch.cat(tensors) for kind, tensors in kinds.items()}
        done = len(blocks) - index
        progress(Progress("measure", done, len(blocks), "Gradients of the loss"))
    return by_module


@torch.no_grad()
def _leaving(
    adapter: ModelAdapter, block: nn.Module, entering: list[Tensor], context
) -> list[Tensor]:
    """Outputs of a block for its inputs, all on the CPU."""
    device = device_of(block)
    return [_block(adapter, block, part.to(device), context)[-1].cpu() for part in entering]


def _block(adapter: ModelAdapter, block: nn.Module, hidden: Tensor, context) -> list[Tensor]:
    """out_proj outputs of attention and FFN and the block's output, each [n, s, d]."""
    entering, outputs = hidden, []
    for kind in KINDS:
        module = adapter.module(block, kind)
        reads = entering if adapter.parallel(block) else hidden
        added, output = run_with_output(adapter, block, module, reads, context)
        hidden = hidden + added
        outputs.append(output)
    return [*outputs, hidden]


def _by_last_block(
    frame: Frame, ids: Tensor, leaving: Tensor, generator: torch.Generator
) -> Tensor:
    """Gradient [n, s, d] (CPU) of the summed loss by the last block's output ``leaving``."""
    leaf = leaving.to(frame.model.device).requires_grad_()
    with torch.enable_grad():
        logits = frame.logits(ids, leaf).float()
        tokens = sample(logits.detach().softmax(-1).flatten(0, 1), 1, generator)
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1), tokens[:, 0].to(logits.device), reduction="sum"
        )
    return torch.autograd.grad(loss, leaf)[0].cpu()
