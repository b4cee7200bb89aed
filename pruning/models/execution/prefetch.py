"""Copies of tensors to a card while it computes with others.

A copy has a stream of its own, so it waits for no computation and none waits for it, and it is made
in another thread, which waits for its end. What arrives is then known to be whole; only its memory
must not be given away before the stream that computes with it has come so far.

A card reads page-locked memory at the speed of the bus, other memory by a detour through the
driver. Large tensors go piece by piece through two page-locked buffers: while the card reads one,
the other is filled. To lock all of a model's memory would take it from everything else.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pruning.models.limits import PIECE_BYTES
from pruning.utils.memory import is_out_of_memory


class Sender:
    """Sends tensors to cards; one thread may use it."""

    def __init__(self) -> None:
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        self._buffers: tuple[Tensor, ...] = ()

    def serves(self, device: torch.device) -> bool:
        """Whether tensors can be sent to ``device`` while it computes."""
        return device.type == "cuda"

    def send(self, tensor: Tensor, device: torch.device) -> Tensor:
        """``tensor`` on ``device``, complete when this returns. It stays where it is when
        ``device`` has no room for it now: there will be once the block in use has left."""
        try:
            if device not in self._streams:
                self._streams[device] = torch.cuda.Stream(device)
            with torch.cuda.stream(self._streams[device]):
                if tensor.nbytes <= PIECE_BYTES:
                    return tensor.to(device)  # from pageable memory: waits for its end
                return self._by_pieces(tensor, device, self._streams[device])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return tensor

    def _by_pieces(self, tensor: Tensor, device: torch.device, stream: torch.cuda.Stream) -> Tensor:
        """A large tensor, through the page-locked buffers."""
        if not self._buffers:
            self._buffers = (page_locked(PIECE_BYTES), page_locked(PIECE_BYTES))
        source = tensor.contiguous()
        sent = torch.empty_like(source, device=device)
        pieces = zip(
            _bytes(source).split(PIECE_BYTES), _bytes(sent).split(PIECE_BYTES), strict=True
        )
        read: list[torch.cuda.Event] = []  # by the card, piece after piece
        for turn, (piece, target) in enumerate(pieces):
            if turn >= 2:
                read[turn - 2].synchronize()
            buffer = self._buffers[turn % 2][: len(piece)]
            buffer.copy_(piece)
            target.copy_(buffer, non_blocking=True)
            read.append(stream.record_event())
        stream.synchronize()
        return sent


def page_locked(size: int) -> Tensor:
    """So many bytes that a card may read by itself."""
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


def _bytes(tensor: Tensor) -> Tensor:
    """A contiguous ``tensor``, byte by byte."""
    return tensor.view(-1).view(torch.uint8)


def wait(tensor: Tensor, device: torch.device) -> Tensor:
    """What was sent, for use on the current stream of ``device``."""
    if tensor.device.type == "cuda":
        tensor.record_stream(torch.cuda.current_stream(tensor.device))
    return tensor.to(device)
