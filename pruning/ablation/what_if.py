"""A model with units switched off beside the dense one, on a short text that the dense one has
read: only the blocks from the first changed one on are run again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pruning.ablation.masks import BlockMask, Masks, masked
from pruning.ablation.reading import REMEDY, Reading, frames_for, log_probabilities
from pruning.artifacts.ablation import Ablation, Change, Continued, NextToken, WhatIf
from pruning.artifacts.comparison import Passage
from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.models.execution.blockwise import Frame, run_block
from pruning.models.execution.offload import resident
from pruning.models.loading.loaded import LoadedModel
from pruning.utils.errors import UsageError
from pruning.utils.memory import device_guard
from pruning.utils.precision import to_float64

SHOWN = 8
"""Tokens that follow a sentence, of each model."""
ROWS = 32
"""Places that are compared at a time."""


@torch.no_grad()
def what_if(
    loaded: LoadedModel,
    reading: Reading,
    off: Ablation,
    masks: Masks,
    *,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> WhatIf:
    """What ``masks`` (of ``off``, see :func:`~pruning.ablation.request.masks_for`) change of what
    ``reading`` says. The model is left as it was. Raises OutOfMemory, Cancelled, and UsageError for
    a reading by another model."""
    started = time.perf_counter()
    with device_guard(loaded.device, REMEDY):
        frames = frames_for(loaded, reading.ids)
        callbacks: dict[str, Any] = {"progress": progress, "should_cancel": should_cancel}
        (after,) = changed(loaded, reading, frames, [masks], **callbacks)
        sides = [
            compared(ids, reading.dense(place, frame), log_probabilities(frame, ids, after[place]))
            for place, ids in enumerate(reading.ids)
            for frame in [frames[ids.shape[1]]]
        ]
    *text, asked = sides
    passages = tuple(
        Passage(pieces, tuple(side.before.tolist()), tuple(side.after.tolist()))
        for pieces, side in zip(reading.pieces, text, strict=True)
    )
    return WhatIf(
        off,
        total_change(text),
        reading.protocol,
        passages,
        _continued(loaded, reading.sentence, asked),
        round(time.perf_counter() - started, 3),
    )


def changed(
    loaded: LoadedModel,
    reading: Reading,
    frames: dict[int, Frame],
    variants: Sequence[Masks],
    *,
    windows: int | None = None,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> list[list[Tensor]]:
    """What leaves the last block [1, s, d] under each of ``variants``, for the first ``windows``
    (None: all) of the reading. A block is brought once for all variants. Raises Cancelled, and
    UsageError for a reading by another model."""
    if reading.identity != loaded.identity:
        raise UsageError("The text was read by another model; read it with this one.")
    blocks = list(loaded.adapter.blocks(loaded.model))
    firsts = [min(masks, default=len(blocks)) for masks in variants]
    streams = [[before[first] for before in reading.entering[:windows]] for first in firsts]
    start = min(firsts, default=len(blocks))
    for index in range(start, len(blocks)):
        stop_if(should_cancel)
        with resident(blocks[index], then=blocks[index + 1 : index + 2]):
            for first, masks, hidden in zip(firsts, variants, streams, strict=True):
                mask = masks.get(index, BlockMask())
                if index < first or mask.whole:
                    continue
                with masked(loaded.adapter, blocks[index], mask):
                    for place, stream in enumerate(hidden):
                        context = frames[stream.shape[1]].contexts[index]
                        hidden[place] = run_block(blocks[index], stream, context)
        done, total = index + 1 - start, len(blocks) - start
        progress(Progress("what_if", done, total, f"Ran block {index}"))
    return streams


@dataclass(frozen=True)
class Compared:
    """Both models on one window: ``before``, ``after`` [s - 1]: losses in nats; ``kl``, ``js`` [s]:
    divergences of the next token's distribution at every place; ``last``: log-probabilities [2,
    vocabulary] of what follows the window."""

    before: Tensor
    after: Tensor
    kl: Tensor
    js: Tensor
    last: Tensor


def compared(ids: Tensor, p: Tensor, q: Tensor) -> Compared:
    """Both models on window ``ids`` [1, s] by their log-probabilities [s, vocabulary]."""
    following = ids[0, 1:, None].to(p.device)
    # a few rows at a time: what lies between is as large as a vocabulary
    parts = [divergences(*rows) for rows in zip(p.split(ROWS), q.split(ROWS), strict=True)]
    kl, js = (torch.cat(side).cpu() for side in zip(*parts, strict=True))
    return Compared(
        -p[:-1].gather(1, following)[:, 0].cpu(),
        -q[:-1].gather(1, following)[:, 0].cpu(),
        kl,
        js,
        torch.stack([p[-1], q[-1]]).cpu(),
    )


def divergences(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """KL(p ‖ q) and JS [s], nats, of log-probabilities [s, vocabulary]."""
    dense, other = p.exp(), q.exp()
    # rounding could bring distributions that are nearly the same below zero
    kl = (p - q).mul_(dense).sum(-1).clamp_min_(0.0)
    middle = (dense + other).div_(2).clamp_min_(torch.finfo(p.dtype).tiny).log_()
    js = (p - middle).mul_(dense).sum(-1) + (q - middle).mul_(other).sum(-1)
    return kl, (js / 2).clamp_min_(0.0)


def total_change(sides: Sequence[Compared]) -> Change:
    """The means over the tokens that windows predict: the second to the last of each."""

    def mean(parts: list[Tensor]) -> float:
        return to_float64(torch.cat(parts)).mean().item()

    return Change(
        tokens=sum(len(side.before) for side in sides),
        loss_before=mean([side.before for side in sides]),
        loss_after=mean([side.after for side in sides]),
        kl=mean([side.kl[:-1] for side in sides]),
        js=mean([side.js[:-1] for side in sides]),
    )


def _continued(loaded: LoadedModel, sentence: str, asked: Compared) -> Continued:
    """The likeliest tokens of both models behind the sentence."""
    count = min(SHOWN, asked.last.shape[1])
    likely = [side.topk(count).indices.tolist() for side in asked.last]
    numbers = list(dict.fromkeys([*likely[0], *likely[1]]))
    before, after = asked.last[:, numbers].exp().tolist()
    order = sorted(range(len(numbers)), key=lambda place: -before[place])
    tokens = tuple(
        NextToken(loaded.tokenizer.decode([numbers[n]]), before[n], after[n]) for n in order
    )
    return Continued(sentence, tokens, asked.kl[-1].item(), asked.js[-1].item())
