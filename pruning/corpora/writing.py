"""Text that the model writes itself, from the first tokens of a window onward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pruning.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if

if TYPE_CHECKING:
    from torch import Generator, Tensor

_TOKENS_PER_BATCH = 8192


def write_on(
    model: Any,
    prompts: Tensor,
    seq_len: int,
    generator: Generator,
    should_cancel: CancelCheck = never,
) -> Tensor:
    """Continue ``prompts`` [n, p] to ids [n, seq_len] (int64, CPU), sampled at temperature 1.

    End-of-text does not end a row early, so every row is whole. Raises Cancelled.
    """
    import torch

    size = max(1, _TOKENS_PER_BATCH // seq_len)
    with torch.inference_mode():
        rows = [_continue(model, part, seq_len, generator, should_cancel) for part in prompts.split(size)]
    return torch.cat(rows)


def _continue(
    model: Any, ids: Tensor, seq_len: int, generator: Generator, should_cancel: CancelCheck
) -> Tensor:
    import torch

    cache, step = None, ids
    while ids.shape[1] < seq_len:
        stop_if(should_cancel)
        output = model(
            step.to(model.device), past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        cache = output.past_key_values
        odds = output.logits[:, -1].float().softmax(-1).cpu()
        # drawn on the CPU so that the seed means the same on every device
        step = torch.multinomial(odds, 1, generator=generator)
        ids = torch.cat([ids, step], dim=1)
    return ids


def continuations(
    model: Any,
    ids: Tensor,
    count: int,
    seed: int,
    *,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Tensor:
    """``count`` windows [count, s] that the model writes from pieces of the windows ``ids`` [n, s].

    Pieces are a thirty-second, an eighth and a quarter of a window long, in turn, and start at
    random places: short ones give variety, long ones keep to the text. The dense model's outputs
    are the target of every recovery, so text of its own is as good a teacher as any; it only
    has to be like the text the model will meet. Raises Cancelled.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    samples, seq_len = ids.shape
    lengths = [max(1, seq_len // part) for part in (32, 8, 4)]
    rows = []
    for place, length in enumerate(lengths):
        numbers = torch.arange(place, count, len(lengths)) // len(lengths) % samples
        if len(numbers) == 0:
            continue
        starts = torch.randint(0, seq_len - length + 1, (len(numbers), 1), generator=generator)
        prompts = ids[numbers[:, None], starts + torch.arange(length)]
        rows.append(write_on(model, prompts, seq_len, generator, should_cancel))
        progress(Progress("write", place + 1, len(lengths), "Writing text to fit on"))
    return torch.cat(rows)
