"""Where the tensors of a model's blocks are: on a compute device only while a block is used.

A model that fits needs none of this. Otherwise its blocks are :class:`PlacedBlock`: a
:class:`BlockStore` keeps their tensors in CPU memory or on disk, :func:`resident` brings them for
the time of a ``with`` statement, and a forward pass of the whole model brings one block after the
other. New tensors that pruning makes go the same way: to CPU memory, or to files that last as long
as they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn

from pruning.models.execution.prefetch import Sender, wait
from pruning.models.execution.spill import SpilledParameter, SpilledParams, TensorRef

_CPU = torch.device("cpu")


class BlockStore:
    """The tensors of blocks that are away.

    ``stored``: where to read a parameter that is on the meta device; a parameter elsewhere is
    its own copy. A tensor that two blocks share (the dense and the pruned one) is brought once.
    A new tensor goes to CPU memory, or to a file where the blocks came from files, or with
    ``stay`` remains where it was made. A copy of a model has the same store. What the next block
    needs from disk is read, and sent to a card, while this one computes.
    """

    def __init__(self, stored: Mapping[Tensor, TensorRef], stay: bool) -> None:
        self._stored, self._stay = dict(stored), stay
        self._here: dict[Tensor, list[Any]] = {}  # away -> [here, users]
        self._homes: dict[nn.Module, dict[Tensor, Tensor]] = {}  # block -> here -> away
        self._depth: dict[nn.Module, int] = {}
        self._coming: dict[Tensor, Future[Tensor]] = {}  # away -> being read or sent
        self._reader, self._sender = ThreadPoolExecutor(1, "reading-blocks"), Sender()
        self._spilled = SpilledParams() if stored else None

    def __deepcopy__(self, _memo: dict) -> BlockStore:
        return self

    def value(self, tensor: Tensor) -> Tensor:
        """What ``tensor`` of a model holds, where that is; in CPU memory if it is in a file."""
        tensor = self._here.get(tensor, [tensor])[0]
        if tensor.device.type == "meta":
            return self._source(tensor).read(tensor.dtype)
        return tensor.detach()

    def _source(self, tensor: Tensor) -> TensorRef:
        """Where a tensor on the meta device is stored."""
        return tensor.source if isinstance(tensor, SpilledParameter) else self._stored[tensor]

    @contextmanager
    def resident(self, block: nn.Module) -> Iterator[None]:
        """``block`` is on its device inside the ``with`` statement, which may be nested."""
        self._depth[block] = self._depth.get(block, 0) + 1
        try:
            if self._depth[block] == 1:
                self._enter(block)
            yield
        finally:
            self._depth[block] -= 1
            if not self._depth[block]:
                del self._depth[block]
                self._leave(block)

    def expect(self, blocks: Sequence[nn.Module]) -> None:
        """Begin to read what ``blocks`` need from disk, and to send what they need on a card. What
        was expected before and is no longer needed is forgotten."""
        wanted = {tensor: device_of(block) for block in blocks for *_, tensor in _tensors(block)}
        coming = {tensor: future for tensor, future in self._coming.items() if tensor in wanted}
        for tensor, device in wanted.items():
            if tensor not in self._here and tensor not in coming:
                steps = self._steps(tensor, device)
                if steps:
                    coming[tensor] = self._reader.submit(_after, steps)
        for tensor in self._coming.keys() - coming.keys():
            self._coming[tensor].cancel()
        self._coming = coming

    def _steps(self, away: Tensor, device: torch.device) -> list[Callable[..., Tensor]]:
        """What can be done about ``away`` while another block computes."""
        steps: list[Callable[..., Tensor]] = []
        if away.device.type == "meta":
            steps.append(partial(self._source(away).read, away.dtype))
        if away.device != device and self._sender.serves(device):
            steps = steps or [away.detach]
            steps.append(partial(self._sender.send, device=device))
        return steps

    def _enter(self, block: nn.Module) -> None:
        device, homes = device_of(block), self._homes.setdefault(block, {})
        for slots, name, away in _tensors(block):
            if away.device != device:
                if away not in self._here:
                    self._here[away] = [_like(away, self._fetched(away, device)), 0]
                here = self._here[away]
                here[1] += 1
                homes[here[0]] = away
                slots[name] = here[0]

    def _fetched(self, away: Tensor, device: torch.device) -> Tensor:
        if away in self._coming:
            return wait(self._coming.pop(away).result(), device)
        if away.device.type == "meta":
            return self._source(away).read(away.dtype).to(device)
        return away.detach().to(device)

    def _leave(self, block: nn.Module) -> None:
        homes = self._homes.pop(block)
        for slots, name, tensor in _tensors(block):
            if tensor in homes:
                slots[name] = homes[tensor]
            elif (
                self._spilled and isinstance(tensor, nn.Parameter) and tensor.device.type != "meta"
            ):
                slots[name] = self._spilled.written(tensor)
            elif tensor.device.type not in ("cpu", "meta") and not self._stay:  # a new tensor
                slots[name] = _like(tensor, tensor.detach().to(_CPU))
        for away in homes.values():
            self._here[away][1] -= 1
            if not self._here[away][1]:
                del self._here[away]


def _after(steps: Sequence[Callable[..., Tensor]]) -> Tensor:
    """What the last of ``steps`` gives; each is handed what the one before gave."""
    first, *others = steps
    tensor = first()
    for step in others:
        tensor = step(tensor)
    return tensor


@dataclass(frozen=True)
class Placement:
    """Where the tensors of a block are while it is not used, and where it computes."""

    store: BlockStore
    device: torch.device


class PlacedBlock(nn.Module):
    """A block of whatever family, whose forward pass brings its tensors (see :func:`placed_class`,
    which derives such classes as torch's FSDP does)."""

    placement: Placement


def placed_class(family: type[nn.Module]) -> type[nn.Module]:
    """The class of placed blocks of a ``family``. Their output is where their input was."""

    @wraps(family.forward)
    def forward(block: PlacedBlock, *args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        device = block.placement.device
        with resident(block):
            output = family.forward(block, *moved(args, device), **moved(kwargs, device))
        return moved(output, hidden.device)

    return type(f"Placed{family.__name__}", (PlacedBlock, family), {"forward": forward})


def place_blocks(
    blocks: Sequence[nn.Module],
    devices: Sequence[torch.device],
    stored: Mapping[Tensor, TensorRef] | None = None,
    stay: bool = False,
) -> None:
    """Offload ``blocks`` to a :class:`BlockStore`; they compute on ``devices`` in turn. With
    ``stay`` they are moved there for good."""
    store = BlockStore(stored or {}, stay)
    placed = {family: placed_class(family) for family in {type(block) for block in blocks}}
    for index, block in enumerate(blocks):
        block.__dict__.pop("forward", None)  # accelerate's, which would move inputs by itself
        block.__class__ = placed[type(block)]
        block.placement = Placement(store, devices[index % len(devices)])
        if stay:
            block.to(block.placement.device)


def is_offloaded(block: nn.Module) -> bool:
    """Whether the block's tensors may be elsewhere while it is not used."""
    return isinstance(block, PlacedBlock)


def device_of(block: nn.Module) -> torch.device:
    """Where ``block`` computes."""
    if isinstance(block, PlacedBlock):
        return block.placement.device
    return next(block.parameters()).device


def devices_of(model: nn.Module) -> set[torch.device]:
    """Everywhere that ``model`` computes."""
    blocks = (module for module in model.modules() if isinstance(module, PlacedBlock))
    return {model.device, *map(device_of, blocks)}


@contextmanager
def resident(*blocks: nn.Module, then: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Have ``blocks`` on their devices inside the ``with`` statement, and meanwhile read from disk
    or send to a card what ``then`` will need, which is used next."""
    with ExitStack() as stack:
        for block in blocks:
            if isinstance(block, PlacedBlock):
                stack.enter_context(block.placement.store.resident(block))
        if not then or not isinstance(then[0], PlacedBlock):
            yield
            return
        store = then[0].placement.store
        store.expect(then)
        try:
            yield
        except BaseException:  # cancelled, for example: nothing will come for it
            store.expect(())
            raise


def value_of(blocks: Sequence[nn.Module], tensor: Tensor) -> Tensor:
    """What a tensor of the model with these ``blocks`` holds, in CPU memory, wherever it is."""
    return located(blocks, tensor).cpu()


def located(blocks: Sequence[nn.Module], tensor: Tensor) -> Tensor:
    """The same where it is; in CPU memory if it is in a file."""
    if isinstance(blocks[0], PlacedBlock):
        return blocks[0].placement.store.value(tensor)
    return tensor.detach()


def moved(value: Any, device: torch.device) -> Any:
    """``value`` with all tensors in it on ``device``."""
    if isinstance(value, Tensor):
        return value.to(device)
    if type(value) in (list, tuple):
        return type(value)(moved(item, device) for item in value)
    if type(value) is dict:
        return {name: moved(item, device) for name, item in value.items()}
    return value


def _tensors(block: nn.Module) -> list[tuple[dict[str, Any], str, Tensor]]:
    """Every parameter and buffer with the place it hangs on."""
    return [
        (slots, name, tensor)
        for module in block.modules()
        for slots in (module._parameters, module._buffers)
        for name, tensor in slots.items()
        if tensor is not None
    ]


def _like(other: Tensor, data: Tensor) -> Tensor:
    """``data`` as a parameter where ``other`` is one."""
    return nn.Parameter(data, requires_grad=False) if isinstance(other, nn.Parameter) else data
