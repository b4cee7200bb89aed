"""Copies of tensors to a card while it computes with others.

A copy has a stream of its own, so it waits for no computation and none waits for it, and it is made
in another thread, which waits for its end. What arrives is then known to be whole; only its memory
must not be given away before the stream that computes with it has come so far.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pruning.utils.memory import is_out_of_memory


class Sender:
    """Sends tensors to cards; one thread may use it."""

    def __init__(self) -> None:
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

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
                return tensor.to(device)  # from pageable memory: waits for its end
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return tensor


def wait(tensor: Tensor, device: torch.device) -> Tensor:
    """What was sent, for use on the current stream of ``device``."""
    if tensor.device.type == "cuda":
        tensor.record_stream(torch.cuda.current_stream(tensor.device))
    return tensor.to(device)
