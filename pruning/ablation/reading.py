"""What the dense model made of a short text: residual streams, from which any change goes on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.artifacts.events import CancelCheck, never, stop_if
from pruning.data.sentence import sentence_ids
from pruning.data.windows import evaluation_windows
from pruning.evaluate.token_losses import pieces
from pruning.models.execution.blockwise import Frame, embed, run_block
from pruning.models.execution.offload import resident
from pruning.models.loading.loaded import LoadedModel
from pruning.utils.errors import UsageError
from pruning.utils.memory import device_guard

LONGEST = 256
"""Tokens of a sentence."""
MOST = 16
"""Windows of text: what is kept of them grows with the model."""
KEPT_BYTES = 64 << 20
"""Log-probabilities that are kept beside the streams, from which they can be made again."""
REMEDY = "use fewer or shorter windows"


@dataclass(frozen=True)
class Reading:
    """``ids``: each window of the text and then the sentence, [1, s] each. ``entering``: for each
    of them what enters every block and what leaves the last one, [1, s, d] on the CPU. ``pieces``:
    the text of each token of the windows. ``identity``: the weights that read it. ``likely``: the
    log-probabilities of what follows every token [s, vocabulary], where they are few enough."""

    identity: str
    source: str
    sentence: str
    ids: tuple[Tensor, ...]
    entering: tuple[tuple[Tensor, ...], ...]
    pieces: tuple[tuple[str, ...], ...]
    dtype: str
    likely: tuple[Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        """What this holds in memory."""
        streams = sum(stream.nbytes for streams in self.entering for stream in streams)
        return streams + sum(side.nbytes for side in self.likely)

    def dense(self, place: int, frame: Frame) -> Tensor:
        """Log-probabilities [s, vocabulary] of what follows every token of one of ``ids``, by the
        model of ``frame``."""
        if self.likely:
            return self.likely[place]
        return log_probabilities(frame, self.ids[place], self.entering[place][-1])

    @property
    def protocol(self) -> str:
        """The sentence that belongs beside numbers on the text."""
        windows = len(self.ids) - 1
        return (
            f"{self.source} (test), {windows} window{'s' * (windows > 1)} of "
            f"{self.ids[0].shape[1]} tokens, {self.dtype}."
        )


@torch.no_grad()
def read(
    loaded: LoadedModel,
    sentence: str,
    *,
    text: str = "sample",
    seq_len: int = 128,
    windows: int = 2,
    text_field: str | None = None,
    should_cancel: CancelCheck = never,
) -> Reading:
    """Let the dense model read ``sentence`` and the first ``windows`` windows of ``seq_len`` tokens
    of the test split of ``text`` (a corpus or a path), once.

    Raises UsageError, SourceError (no tokenizer, a text too short), OutOfMemory and Cancelled.
    """
    check_reading(seq_len, windows)
    model, adapter, tokenizer = loaded.model, loaded.adapter, loaded.tokenizer
    cut = evaluation_windows(text, model, tokenizer, seq_len, windows, text_field=text_field)
    limit = min(LONGEST, adapter.max_positions(model.config))
    asked = sentence_ids(sentence, tokenizer, model)
    if len(asked) > limit:
        raise UsageError(f"The sentence has {len(asked)} tokens; shorten it to {limit}.")
    ids = (*cut.ids.split(1), torch.tensor([asked]))
    with device_guard(loaded.device, REMEDY):
        frames = frames_for(loaded, ids)
        entering = [[embed(model, adapter, window)] for window in ids]
        blocks = list(adapter.blocks(model))
        for index, block in enumerate(blocks):
            stop_if(should_cancel)
            with resident(block, then=blocks[index + 1 : index + 2]):
                for streams in entering:
                    context = frames[streams[0].shape[1]].contexts[index]
                    streams.append(run_block(block, streams[-1], context))
        tokens = sum(window.shape[1] for window in ids)
        likely = tuple(
            log_probabilities(frames[window.shape[1]], window, streams[-1])
            for window, streams in zip(ids, entering, strict=True)
            if 4 * tokens * model.config.vocab_size <= KEPT_BYTES
        )
    return Reading(
        loaded.identity,
        cut.source,
        sentence,
        ids,
        tuple(map(tuple, entering)),
        tuple(tuple(pieces(tokenizer, window)) for window in cut.ids.tolist()),
        loaded.dtype,
        likely,
    )


def log_probabilities(frame: Frame, ids: Tensor, leaving: Tensor) -> Tensor:
    """Of what follows every token of ``ids`` [1, s]: [s, vocabulary], float32, on the model's
    device, from what left the last block [1, s, d]."""
    return frame.logits(ids, leaving)[0].float().log_softmax(-1)


def check_reading(seq_len: int, windows: int) -> None:
    """Raise UsageError for windows of which nothing, or too much, would be read."""
    if seq_len < 2 or not 1 <= windows <= MOST:
        raise UsageError(f"Read 1 to {MOST} windows of at least 2 tokens, not {windows}×{seq_len}.")


def frames_for(loaded: LoadedModel, ids: tuple[Tensor, ...]) -> dict[int, Frame]:
    """The model around its blocks for single windows, by their length."""
    lengths = {window.shape[1]: window for window in ids}
    return {n: Frame(loaded.model, loaded.adapter, window) for n, window in lengths.items()}
