"""Ranks that torchrun has started, by torch.distributed: gloo between CPUs, NCCL between cards."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pruning.distributed.ranks import ALONE, Ranks, world_size
from pruning.utils.errors import HeadroomError, UsageError

T = TypeVar("T")

_PATIENCE = timedelta(days=7)
"""While one rank solves, the others wait; torchrun ends all when one has failed."""


def own_device(device: str) -> str:
    """The one that this rank works on when the request says ``device``: each has a card of its own.
    Raises UsageError where there are fewer cards than ranks."""
    if world_size() == 1 or device not in ("auto", "cuda") or not torch.cuda.is_available():
        return device
    cards = torch.cuda.device_count()
    if _local("WORLD_SIZE", 1) > cards:
        raise UsageError(
            f"There are more processes than cards; start torchrun with --nproc-per-node {cards}, "
            "or choose --device cpu."
        )
    return f"cuda:{_local('RANK', 0)}"


def _local(name: str, default: int) -> int:
    return int(os.environ.get(f"LOCAL_{name}", default))


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """The ranks among which torchrun started this process, whose model is on ``device``; ALONE
    where it did not."""
    if world_size() == 1:
        yield ALONE
        return
    backend = "gloo"
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield TorchRanks()
    finally:
        dist.destroy_process_group()


class TorchRanks(Ranks):
    """The ranks of the default process group."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.here = _local("WORLD_SIZE", 1)

    def total(self, tensor: Tensor) -> Tensor:
        # a ring adds each part up on one rank and hands it round: all get the same bits
        summed = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed

    def total_at_first(self, tensor: Tensor) -> Tensor:
        summed = tensor.clone(memory_format=torch.contiguous_format)
        dist.reduce(summed, dst=0)
        return summed if self.is_first else tensor

    def gathered(self, rows: Tensor) -> Tensor:
        sizes = [0] * self.size
        dist.all_gather_object(sizes, len(rows))
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def from_first(self, make: Callable[[], T]) -> T:
        made = make() if self.is_first else None
        box = [_packed(made) if self.is_first else b""]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return made if self.is_first else pickle.loads(box[0])  # type: ignore[return-value]

    @contextmanager
    def together(self) -> Iterator[None]:
        failed = None
        try:
            yield
        except HeadroomError as error:
            failed = error
        told = [False] * self.size
        dist.all_gather_object(told, failed is not None)
        if any(told):
            if failed is not None and told.index(True) == self.rank:
                raise failed
            raise SystemExit(1)


class _Pickler(pickle.Pickler):
    """Tensors travel through the CPU, to the card of the rank that they come to. Only between the
    processes of one torchrun, as torch's own collectives of objects do it: nothing of a file, or
    of anybody else, is ever unpickled."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.device.type != "cpu":
            return torch.Tensor.to, (value.cpu(), value.device.type)
        return NotImplemented


def _packed(value: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()
