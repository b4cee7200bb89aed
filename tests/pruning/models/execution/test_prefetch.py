"""Large tensors go to a card through two page-locked buffers, piece by piece."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from pruning.models.execution import prefetch
from pruning.models.execution.prefetch import Sender


class _LateStream:
    """Stands for a stream of a card, which reads a buffer only when it is waited for."""

    def __init__(self, _device=None):
        self.queued, self.read, self.most = [], 0, 0

    def copy(self, target, buffer):
        self.queued.append((target, buffer))
        self.most = max(self.most, len(self.queued) - self.read)

    def record_event(self):
        return _Event(self, len(self.queued))

    def synchronize(self):
        _Event(self, len(self.queued)).synchronize()


class _Event:
    def __init__(self, stream, upto):
        self.stream, self.upto = stream, upto

    def synchronize(self):
        stream = self.stream
        for target, buffer in stream.queued[stream.read : self.upto]:
            target.copy_(buffer)
        stream.read = max(stream.read, self.upto)


@pytest.fixture
def stream(monkeypatch):
    """A sender's stream; copies that do not block are made when the card comes to them."""
    made, copy = _LateStream(), torch.Tensor.copy_

    def copying(target, source, non_blocking=False):
        return made.copy(target, source) if non_blocking else copy(target, source)

    monkeypatch.setattr(torch.cuda, "Stream", lambda _device: made)
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: nullcontext())
    monkeypatch.setattr(torch.Tensor, "copy_", copying)
    monkeypatch.setattr(prefetch, "PIECE_BYTES", 64)
    monkeypatch.setattr(prefetch, "page_locked", lambda n: torch.empty(n, dtype=torch.uint8))
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("count", [9, 16, 17, 32, 33, 101])
def test_what_arrives_is_what_was_sent(stream, dtype, count):
    sender, device = Sender(), torch.device("cpu")
    for tensor in (torch.arange(count * 3), torch.arange(count * 6).view(6, count).T[:, ::2]):
        wanted = tensor.to(dtype)
        sent = sender.send(wanted, device)
        assert torch.equal(sent, wanted) and sent.dtype == dtype and sent.shape == wanted.shape
    assert stream.most <= 2 and (stream.queued or count * 3 * dtype.itemsize <= 64)


def test_small_tensors_take_no_detour(stream):
    wanted = torch.arange(8.0)
    assert torch.equal(Sender().send(wanted, torch.device("cpu")), wanted) and not stream.queued


def test_without_room_a_tensor_stays(stream, monkeypatch):
    def full(_size):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(prefetch, "page_locked", full)
    wanted = torch.arange(100.0)
    assert Sender().send(wanted, torch.device("cpu")) is wanted


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_card_gets_what_was_sent():
    wanted = torch.randn(5 * 2**22 + 3, dtype=torch.float32)  # three pieces, the last one short
    sent = Sender().send(wanted, torch.device("cuda", 0))
    assert sent.device.type == "cuda" and torch.equal(sent.cpu(), wanted)
